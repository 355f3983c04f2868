use std::net::IpAddr;
use std::time::Instant;

use super::{LoginError, Sessions, session_cookie};
use crate::ops::{Actor, Role};
use crate::testing::Directory;

const PASSWORD: &str = "correct horse battery";

async fn sessions(directory: &Directory) -> Sessions {
    let ops = directory.open().await;
    ops.put_user("ann", PASSWORD, Role::Operator, &Actor::console()).await.unwrap();
    Sessions::new(ops)
}

fn here() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

#[test]
fn cookies_are_found_among_others() {
    assert_eq!(session_cookie("a=b; __Host-sallyport=xyz; c=d"), Some("xyz"));
    assert_eq!(session_cookie("__Host-sallyportx=xyz"), None);
    assert_eq!(session_cookie(""), None);
}

#[tokio::test]
async fn a_session_begins_is_found_and_ends() {
    let directory = Directory::new();
    let sessions = sessions(&directory).await;
    let begun = sessions.login("ann", PASSWORD, here()).await.unwrap();
    for attribute in ["__Host-", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(begun.cookie.contains(attribute), "{}", begun.cookie);
    }
    let header = begun.cookie.split(';').next().unwrap();
    let signed_in = sessions.find(header, Some(here()), None).await.unwrap().unwrap();
    assert_eq!((signed_in.actor.name.as_str(), signed_in.actor.role), ("ann", Role::Operator));
    assert!(
        signed_in.check(&signed_in.csrf).is_ok()
            && signed_in.check("other").is_err()
            && signed_in.check("").is_err()
    );
    // Neither the cookie nor the password lies in the database.
    let secret = header.split_once('=').unwrap().1;
    for file in ["console.sqlite", "console.sqlite-wal"] {
        let bytes = std::fs::read(directory.path().join(file)).unwrap();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()));
        assert!(!bytes.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()));
    }
    sessions.logout(&signed_in).await.unwrap();
    assert!(sessions.find(header, None, None).await.unwrap().is_none());
    assert!(sessions.find("__Host-sallyport=guess", None, None).await.unwrap().is_none());
}

#[tokio::test]
async fn a_new_password_ends_the_old_sessions() {
    let directory = Directory::new();
    let sessions = sessions(&directory).await;
    let begun = sessions.login("ann", PASSWORD, here()).await.unwrap();
    sessions.ops.reset_user("ann", false, &Actor::console()).await.unwrap();
    let header = begun.cookie.split(';').next().unwrap();
    assert!(sessions.find(header, None, None).await.unwrap().is_none());
    assert!(matches!(sessions.login("ann", PASSWORD, here()).await, Err(LoginError::Wrong)));
}

#[tokio::test]
async fn guessing_is_slowed_down_also_for_names_that_are_not_there() {
    let directory = Directory::new();
    let sessions = sessions(&directory).await;
    for name in ["ann", "nobody"] {
        assert!(matches!(sessions.login(name, "wrong", here()).await, Err(LoginError::Wrong)));
    }
    // Hashing takes its time in a test: the rest of the guesses without it.
    let guess = |n: u32| sessions.throttle.attempt(&format!("nobody{n}"), here(), Instant::now());
    assert!((0..100).any(|n| guess(n).is_err()));
    // Even the right password waits.
    assert!(matches!(sessions.login("ann", PASSWORD, here()).await, Err(LoginError::Throttled(_))));
    let elsewhere = IpAddr::from([198, 51, 100, 1]);
    sessions.login("ann", PASSWORD, elsewhere).await.unwrap();
}

#[tokio::test]
async fn the_setup_link_makes_one_administrator() {
    let directory = Directory::new();
    let sessions = Sessions::new(directory.open().await);
    let token = sessions.setup_token().await.unwrap().unwrap();
    assert!(sessions.setup_open(&token).await && !sessions.setup_open("guess").await);
    assert!(matches!(sessions.setup("guess", "ann", PASSWORD).await, Err(LoginError::SetupToken)));
    assert!(matches!(sessions.setup(&token, "ann", "short").await, Err(LoginError::Weak(_))));
    sessions.setup(&token, "ann", PASSWORD).await.unwrap();
    assert!(!sessions.setup_open(&token).await);
    assert!(matches!(sessions.setup(&token, "eve", PASSWORD).await, Err(LoginError::SetupToken)));
    assert!(sessions.setup_token().await.unwrap().is_none());
}

#[tokio::test]
async fn a_setup_link_used_at_once_by_many_makes_one_administrator() {
    let directory = Directory::new();
    let sessions = Sessions::new(directory.open().await);
    let token = sessions.setup_token().await.unwrap().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let (sessions, token) = (sessions.clone(), token.clone());
            tokio::spawn(async move { sessions.setup(&token, &format!("user{n}"), PASSWORD).await.is_ok() })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += usize::from(task.await.unwrap());
    }
    assert_eq!((made, sessions.ops.users().await.unwrap().len()), (1, 1));
}
