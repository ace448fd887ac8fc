//! Credentials as the client library asks for them.

use std::pin::Pin;

use fred::types::RespVersion;
use fred::types::config::{CredentialProvider, Server};

use super::dial::spelled;
use crate::credentials::Credentials;

type Answer = Result<(Option<String>, Option<String>), fred::error::Error>;

/// Asks for user and password at each connection.
#[derive(Debug)]
pub struct Asking {
    pub credentials: Credentials,
    /// Of the connection.
    pub version: RespVersion,
}

impl CredentialProvider for Asking {
    fn fetch<'a, 'b, 'c>(
        &'a self,
        _: Option<&'b Server>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async {
            let login = self.credentials.ask().await.map_err(|error| {
                let why = format!("the credentials could not be had: {error}");
                fred::error::Error::new(fred::error::ErrorKind::Auth, why)
            })?;
            let spelled = |text| spelled(text, &self.version);
            Ok((login.user.map(spelled), Some(spelled(login.password))))
        })
    }
}
