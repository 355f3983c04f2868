//! Responses: an origin that sends a case's bytes, and clients that must never get each other's.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::corpus::{Case, Want};
use super::{Place, Run, host, says};
use sallyport_tests::client::ended;
use sallyport_tests::stage::ORIGINS4;

/// Where the origin listens.
pub(crate) const PORT: u16 = 9010;

fn serve(stream: &TcpStream, cases: &[Case]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        let target = first.split(' ').nth(1).unwrap_or_default();
        match cases.iter().find(|case| target == format!("/c/{}", case.name)) {
            Some(case) => {
                for (at, piece) in case.pieces.iter().enumerate() {
                    if at > 0 {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    stream.write_all(piece)?;
                }
            }
            None => {
                let length = target.len();
                stream.write_all(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}").as_bytes(),
                )?;
            }
        }
        // `Connection: close` in a case's head is meant.
        if cases.iter().any(|case| {
            target == format!("/c/{}", case.name)
                && case.pieces.concat().windows(17).any(|w| w == b"Connection: close")
        }) {
            return Ok(());
        }
    }
}

/// All cases: what deviated.
pub(crate) fn run(place: &Place, cases: &[Case]) -> Run {
    let listener =
        place.stage.origins.inside(|| TcpListener::bind((ORIGINS4, PORT))).expect("the origin's port");
    let shared: Arc<Vec<Case>> = Arc::new(cases.to_vec());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let cases = shared.clone();
            std::thread::spawn(move || serve(&stream, &cases));
        }
    });
    let mut run = Run::new("an origin of the test's own", "responses.txt", "responses");
    place.stage.clients.inside(|| cases.iter().for_each(|case| run.check(case, one(place, case))));
    run.count(cases);
    run
}

fn one(place: &Place, case: &Case) -> Result<(), String> {
    let (host, dial) = (host("raw"), place.dial("raw", "http/1.1"));
    let text = |error: std::io::Error| error.to_string();
    let mut connection = dial.open().map_err(text)?;
    let (method, name) = (&case.method, &case.name);
    connection
        .send(format!("{method} /c/{name} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .map_err(text)?;
    let (status, body) = if method == "HEAD" {
        (connection.head().map_err(text)?.0, Vec::new())
    } else {
        match connection.answer() {
            Ok(answer) => (answer.status, answer.body),
            // A body that ends too early can only be said by the connection's end.
            Err(error) if matches!(case.want, Want::Cut(_)) && ended(&error) => (0, Vec::new()),
            Err(error) => return Err(format!("no answer: {error}")),
        }
    };
    let said = String::from_utf8_lossy(&body).into_owned();
    match &case.want {
        Want::Refuse(reason) if status >= 500 && says(&said, reason) => {}
        Want::Get { status: wanted, body: right } if status == *wanted && body == *right => {}
        Want::Cut(_) if status == 0 => {}
        Want::Refuse(_) | Want::Cut(_) | Want::One { .. } | Want::Get { .. } => {
            return Err(format!("{status} {said:?}"));
        }
    }
    // The same client once more, where it may, then others, who most likely meet the same connection to the origin.
    std::thread::sleep(Duration::from_millis(if case.pieces.len() > 1 { 600 } else { 0 }));
    let own = format!("/m/{name}");
    match connection.get(&host, &own) {
        Ok(answer) if answer.text() == own => {}
        Err(error) if ended(&error) => {}
        next => return Err(format!("the same client's next answer: {next:?}")),
    }
    for next in 0..4 {
        let target = format!("/n/{name}/{next}");
        let answer = dial.get(&host, &target).map_err(|error| format!("the next client: {error}"))?;
        if (answer.status, answer.text()) != (200, target) {
            return Err(format!("the next client got {} {:?}", answer.status, answer.text()));
        }
    }
    Ok(())
}
