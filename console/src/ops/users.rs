//! Users and tokens.

use model::digest::Digest;
use model::problem::Code;

use super::{Actor, Ops, OpsError, Role, User, allowed};
use crate::secrets::random_text;
use crate::session::password;

impl Ops {
    /// Users, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn users(&self) -> Result<Vec<User>, OpsError> {
        Ok(self.store().users().await?)
    }

    /// Adds a user, or gives a known one another password and role and ends the sessions it has.
    ///
    /// # Errors
    /// When the name is none, the password too short, or the actor may not.
    pub async fn put_user(
        &self,
        name: &str,
        password: &str,
        role: Role,
        actor: &Actor,
    ) -> Result<(), OpsError> {
        allowed(actor, Role::Administrator)?;
        let hashed = hashed(name, password).await?;
        self.store().put_user(name, &hashed, role).await?;
        self.store().audit(actor, &format!("set password and role of user {name}")).await?;
        Ok(())
    }

    /// Makes the first user, an administrator, for whoever has the secret whose digest this setting holds; whether that was
    /// so. Of several at once one succeeds.
    ///
    /// # Errors
    /// When the name is none, the password too short, or the store fails.
    pub(crate) async fn first_user(
        &self,
        (setting, secret): (&str, Digest),
        name: &str,
        password: &str,
    ) -> Result<bool, OpsError> {
        let hashed = hashed(name, password).await?;
        let made = self.store().first_user(setting, &secret, name, &hashed).await?;
        if made {
            self.store().audit(&Actor::console(), &format!("made {name} the first administrator")).await?;
        }
        Ok(made)
    }

    /// Gives a user (a new one as administrator) a random password, which is returned.
    ///
    /// # Errors
    /// When the actor may not, or the store fails.
    pub async fn reset_user(&self, name: &str, create: bool, actor: &Actor) -> Result<String, OpsError> {
        let known = self.store().user(name).await?;
        let role = known.as_ref().map_or(Role::Administrator, |user| user.role);
        if known.is_none() && !create {
            let users: Vec<String> = self.users().await?.into_iter().map(|user| user.name).collect();
            if !users.is_empty() {
                return Err(OpsError::NotFound(format!(
                    "there is no user {name}, only {}; --create (in the API \"create\": true) makes one",
                    users.join(", ")
                )));
            }
        }
        let password = random_text()?;
        self.put_user(name, &password, role, actor).await?;
        Ok(password)
    }

    /// Makes a token, which is returned and kept only as a hash; one of the same name ends.
    ///
    /// # Errors
    /// When the actor may not, or the store fails.
    pub async fn make_token(&self, name: &str, role: Role, actor: &Actor) -> Result<String, OpsError> {
        allowed(actor, Role::Administrator)?;
        let token = random_text()?;
        self.store().put_token(name, &Digest::of(token.as_bytes()), role).await?;
        self.store().audit(actor, &format!("made the token {name}")).await?;
        Ok(token)
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn token(&self, token: &str) -> Result<Option<(String, Role)>, OpsError> {
        Ok(self.store().token(&Digest::of(token.as_bytes())).await?)
    }
}

/// The argon2id string of a password that is good enough, for a name that is one.
async fn hashed(name: &str, password: &str) -> Result<String, OpsError> {
    let wrong = |field, message| OpsError::problem(format!("User/{name}"), field, Code::Invalid, message);
    if !user_name(name) {
        return Err(wrong("name", "a user's name is 1 to 64 letters, digits or any of . _ @ - +"));
    }
    if password.chars().count() < password::SHORTEST || password.len() > password::LONGEST {
        return Err(wrong("password", "a password has at least 12 characters, and at most 1024 bytes"));
    }
    password::hash(password.to_owned()).await
}

fn user_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-+".contains(&b))
}
