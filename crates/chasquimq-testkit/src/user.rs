//! The user as whom everything under test connects; the tests themselves have all rights.

use std::env;

use anyhow::{Context, Result};

/// The command that makes the user, as `chasqui acl print` has it: `ACL SETUSER name … >password …`.
const RULE: &str = "CHASQUIMQ_TEST_ACL";

/// A user of the servers of this test run.
pub(crate) struct User {
    /// Name and rules, as a line of the server's configuration file has them.
    rules: String,
    name: String,
    password: String,
}

impl User {
    /// The one that `CHASQUIMQ_TEST_ACL` tells of; without it everybody may do everything.
    pub(crate) fn of_environment() -> Result<Option<Self>> {
        env::var(RULE)
            .ok()
            .filter(|rule| !rule.is_empty())
            .map(|rule| Self::read(&rule))
            .transpose()
    }

    fn read(rule: &str) -> Result<Self> {
        let read = || {
            let rules = rule.trim().strip_prefix("ACL SETUSER ")?;
            let mut words = rules.split(' ');
            let name = words.next()?.to_owned();
            let password = words.find_map(|word| word.strip_prefix('>'))?.to_owned();
            Some(Self { rules: rules.to_owned(), name, password })
        };
        read().with_context(|| format!("{RULE} is no ACL SETUSER with a password: {rule:?}"))
    }

    /// The line that makes the user when the server starts.
    pub(crate) fn line(&self) -> String {
        format!("user {}\n", self.rules)
    }

    /// What stands before the host in a URL.
    pub(crate) fn login(&self) -> String {
        format!("{}:{}@", self.name, self.password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_becomes_a_line_and_a_login() {
        let user = User::read("ACL SETUSER u reset on >p ~{q}:* +xadd").unwrap();
        assert_eq!(user.line(), "user u reset on >p ~{q}:* +xadd\n");
        assert_eq!(user.login(), "u:p@");
        assert!(User::read("ACL SETUSER u on nopass").is_err());
    }
}
