//! Chromium, as the test steers it, and what it shows.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sallyport_tests::product::Product;
use sallyport_tests::stage::Stage;
use serde_json::{Value, json};

/// A desktop and a phone.
pub(crate) const WIDTHS: [u64; 2] = [1440, 390];
pub(crate) const THEMES: [&str; 2] = ["light", "dark"];

/// Every width in every theme.
pub(crate) fn looks() -> Vec<(u64, &'static str)> {
    WIDTHS.into_iter().flat_map(|width| THEMES.map(|theme| (width, theme))).collect()
}

/// A browser in the node's namespace, beside the console. It goes with this value.
pub(crate) struct Screen {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What somebody reads on a page at one moment.
#[derive(Debug)]
pub(crate) struct Seen {
    page: Value,
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

impl Screen {
    /// Starts it, and makes the console's first administrator with it.
    pub(crate) fn start(stage: &Stage, product: &Product) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/steer.mjs");
        let access = std::fs::read_to_string(product.dir().join("state/console/cli.json")).unwrap();
        let access: Value = serde_json::from_str(&access).unwrap();
        let (url, token) = (access["url"].as_str().unwrap(), product.setup_token());
        let mut command = Command::new("node");
        command
            .arg(script)
            // A token may begin with `-`.
            .args(["--url", url, &format!("--setup-token={token}"), "--ca"])
            .arg(product.dir().join("state/console/ca.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = stage.node.inside(|| command.spawn()).expect("node: ./test installs it");
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut screen = Self { child, orders, answers };
        screen.order(&json!({ "do": "set-up" }));
        screen
    }

    fn order(&mut self, order: &Value) -> Value {
        let mut answer = String::new();
        writeln!(self.orders.as_mut().unwrap(), "{order}").expect("the browser is there");
        self.answers.read_line(&mut answer).unwrap();
        assert!(
            !answer.is_empty(),
            "{order}: the browser has ended; above stands why (npm ci in tests/browser?)"
        );
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["failed"], Value::Null, "{order}");
        answer["done"].clone()
    }

    /// Opens a page in a tab, at a width and in a theme: how long it took until all of it was there.
    pub(crate) fn open(&mut self, tab: &str, path: &str, (width, theme): (u64, &str)) -> Duration {
        let order = json!({ "do": "open", "tab": tab, "path": path, "width": width, "theme": theme });
        let done = self.order(&order);
        assert_eq!(done["status"], 200, "{path}");
        Duration::from_secs_f64(done["took"].as_f64().unwrap() / 1000.0)
    }

    /// What stands in a tab now, without asking the console.
    pub(crate) fn read(&mut self, tab: &str) -> Seen {
        let page = self.order(&json!({ "do": "read", "tab": tab }));
        let at_ms = page["at"].as_u64().unwrap();
        Seen { page, at_ms }
    }

    /// Takes a picture, and looks for what is cramped or does not fit on it.
    pub(crate) fn shoot(&mut self, tab: &str, file: &str) {
        self.order(&json!({ "do": "shot", "tab": tab, "file": file }));
        let ugly = self.order(&json!({ "do": "look", "tab": tab }));
        assert_eq!(ugly, json!([]), "{file}");
    }

    /// Fails on what keeps people from using a page.
    pub(crate) fn audit(&mut self, tab: &str) {
        assert_eq!(self.order(&json!({ "do": "audit", "tab": tab })), json!([]), "{tab}");
    }

    pub(crate) fn close(&mut self, tab: &str) {
        self.order(&json!({ "do": "close", "tab": tab }));
    }

    /// Fails on everything that the browser complained of until now.
    pub(crate) fn no_complaint(&mut self) {
        assert_eq!(self.order(&json!({ "do": "complaints" })), json!([]));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It ends with its orders.
        self.orders = None;
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seen {
    fn part(&self, id: &str) -> &Value {
        let parts = self.page["parts"].as_array().unwrap();
        let part = parts.iter().find(|part| part["id"] == id);
        part.unwrap_or_else(|| panic!("nothing is called {id} on {:#}", self.page))
    }

    /// A part's text.
    pub(crate) fn text(&self, id: &str) -> &str {
        self.part(id)["text"].as_str().unwrap()
    }

    /// The rows of a part's tables, cell by cell.
    pub(crate) fn rows(&self, id: &str) -> Vec<Vec<String>> {
        let cells = |row: &Value| {
            row.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap().to_owned()).collect()
        };
        self.part(id)["rows"].as_array().unwrap().iter().map(cells).collect()
    }

    /// The row of a part whose first cell begins with this line.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn row(&self, id: &str, first: &str) -> Result<Vec<String>, String> {
        let row = self.rows(id).into_iter().find(|row| row[0].lines().next() == Some(first));
        row.ok_or_else(|| format!("{first}: no row of {id}"))
    }
}

/// A figure as it is written for people: `12,345`, what stands behind it left out.
pub(crate) fn number(text: &str) -> u64 {
    let digits: String = text.trim().chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
    digits.replace(',', "").parse().unwrap_or_else(|_| panic!("{text:?} is no figure"))
}
