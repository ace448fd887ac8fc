//! The user that the code under test is, where it is not the one that may do everything.

use std::env;

/// An `ACL SETUSER` command, as `chasqui acl print` prints it.
const ACL: &str = "CHASQUIMQ_TEST_ACL";

/// A user of a server.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    name: String,
    password: String,
    rules: String,
}

impl Login {
    /// The one of the environment.
    ///
    /// # Panics
    /// When it is no such command, or gives the user no password.
    pub(crate) fn of_environment() -> Option<Self> {
        let command = env::var(ACL).ok()?;
        let login = Self::parse(&command);
        Some(login.unwrap_or_else(|| panic!("{ACL} is no ACL SETUSER … >password …: {command}")))
    }

    fn parse(command: &str) -> Option<Self> {
        let (name, rules) = command.trim().strip_prefix("ACL SETUSER ")?.split_once(' ')?;
        let password = rules.split(' ').find_map(|word| word.strip_prefix('>'))?;
        Some(Self { name: name.into(), password: password.into(), rules: rules.into() })
    }

    /// The line of a configuration file that makes it.
    pub(crate) fn line(&self) -> String {
        format!("user {} {}", self.name, self.rules)
    }

    /// The same user, who may do everything.
    pub(crate) fn line_of_all_rights(&self) -> String {
        format!("user {} reset on >{} ~* &* +@all", self.name, self.password)
    }

    /// `name:password`, as in a URL.
    pub(crate) fn words(&self) -> String {
        format!("{}:{}", self.name, self.password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_is_a_user() {
        let login = Login::parse("ACL SETUSER w reset on >pw ~{chasqui:*}:* +ping\n").unwrap();
        assert_eq!(login.line(), "user w reset on >pw ~{chasqui:*}:* +ping");
        assert_eq!(login.line_of_all_rights(), "user w reset on >pw ~* &* +@all");
        assert_eq!(login.words(), "w:pw");
        for command in ["", "ACL SETUSER w", "ACL SETUSER w on +ping"] {
            assert!(Login::parse(command).is_none(), "{command}");
        }
    }
}
