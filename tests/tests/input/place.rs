//! The product with a route that serves, and what must hold after every refusal.

use std::fs;
use std::time::Duration;

use sallyport_tests::api::Api;
use sallyport_tests::browser::Browser;
use sallyport_tests::eventually;
use sallyport_tests::origin::Origin;
use sallyport_tests::product::Product;
use sallyport_tests::stage::{HOST, Stage};
use serde_json::Value;

pub(crate) struct Place {
    pub(crate) stage: Stage,
    pub(crate) product: Product,
    pub(crate) api: Api,
    _origin: Origin,
}

/// A form: its path, its fields.
pub(crate) type Form<'a> = (&'a str, &'a [(&'a str, &'a str)]);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |stage| stage.product())
    }

    pub(crate) fn with(name: &str, start: impl FnOnce(&Stage) -> Product) -> Self {
        let stage = Stage::new(name);
        let origin = stage.origin("one", 8443);
        let mut product = start(&stage);
        let api = product.ready();
        stage.configure(&product, &api, &[origin.url()]);
        let place = Self { stage, product, api, _origin: origin };
        place.served();
        place
    }

    /// The first administrator at the console's pages.
    pub(crate) fn administrator(&self) -> Browser {
        self.api.browser().set_up(&self.product.setup_token()).expect("the first administrator")
    }

    /// Traffic goes on.
    pub(crate) fn served(&self) {
        eventually("traffic goes on", Duration::from_secs(10), || {
            let answer = self.stage.clients.inside(|| self.stage.dial().get(HOST, "/"));
            match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// The same objects through API and command line, and where there is one through the form: refused by all with the
    /// same sentence about the same field.
    pub(crate) fn refused(
        &self,
        what: &str,
        objects: &[Value],
        (code, place): (&str, &str),
        form: Option<(&Browser, Form<'_>)>,
    ) {
        let revisions = self.api.revisions();
        let (status, answer) = self.api.try_apply(objects).expect_err(what);
        assert!((400..500).contains(&status), "{what}: {status} {answer}");
        let problems = answer["problems"].as_array().cloned().unwrap_or_default();
        let problem = problems
            .iter()
            .find(|problem| problem["code"] == code)
            .unwrap_or_else(|| panic!("{what}: {answer}"));
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        assert!(format!("{} {}", text("object"), text("field")).contains(place), "{what}: {problem}");
        assert!(text("message").len() > 10, "{what}: {problem}");

        let (ok, said) = self.applied(objects);
        assert!(!ok, "{what}: the command line accepts it");
        assert!(said.contains(&text("message")), "{what}: {said} instead of {}", text("message"));

        if let Some((browser, (path, fields))) = form {
            let (status, page) = browser.submit(path, fields);
            assert_eq!(status, 422, "{what}: {page}");
            assert!(page.contains(&text("message")), "{what}: {page}\n instead of {}", text("message"));
        }
        assert_eq!(self.api.revisions(), revisions, "{what}: a revision came of it");
        self.served();
    }

    /// Whether the command line applies the objects, and what it says.
    pub(crate) fn applied(&self, objects: &[Value]) -> (bool, String) {
        let file = self.product.dir().join("bad.yaml");
        let documents: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        fs::write(&file, documents).unwrap();
        let (ok, out, err) = self.product.cli(&["apply", "--yes", "-f", file.to_str().unwrap()]);
        (ok, out + &err)
    }

    /// The sentence stands in the API's status, the command line's and the node's page.
    pub(crate) fn told(&self, browser: &Browser, words: &[&str]) {
        let missing =
            |text: &str| words.iter().find(|word| !text.contains(**word)).map(|word| word.to_string());
        let node = self.api.get("/api/v1/nodes")["items"][0]["name"].as_str().unwrap_or("local").to_owned();
        eventually(&format!("everybody says {words:?}"), Duration::from_secs(20), || {
            let (_, out, err) = self.product.cli(&["status"]);
            let texts = [
                (
                    "API",
                    self.api.get("/api/v1/status").to_string() + &self.api.get("/api/v1/nodes").to_string(),
                ),
                ("command line", out + &err),
                ("page", browser.read(&format!("/nodes/{node}"))),
            ];
            let lacks = texts
                .iter()
                .find_map(|(who, text)| Some(format!("{who} lacks {:?}: {text}", missing(text)?)));
            lacks.map_or(Ok(()), Err)
        });
    }
}
