//! Fetches the published keys of a source over the network.

use std::sync::Arc;

use posthouse_egress::Egress;
use posthouse_model::{
    Env, Secret,
    config::{
        self,
        scheme::{Fetchable, KeySource, Row},
    },
};
use serde_json::{Value, json};

use super::{
    keychain::{Publisher, Publishing, Wanted},
    published::PublishedKey,
};

/// The way to the keys of one source.
pub(super) struct Network {
    egress: Egress,
    env: Env,
    rows: Vec<Arc<Row>>,
    /// `CLIENT_ID:SECRET` for the sender's API.
    credentials: Option<Secret>,
}

impl Network {
    /// The way to the keys of this source. None if the source has none to fetch.
    pub(super) fn of(source: &config::Source, egress: &Egress, env: &Env) -> Option<Self> {
        let rows: Vec<_> =
            source.scheme.rows.iter().filter(|row| row.key_source.is_some()).cloned().collect();
        let credentials = source.secrets.first().cloned();
        (!rows.is_empty()).then(|| Self { egress: egress.clone(), env: env.clone(), rows, credentials })
    }
}

impl Publisher for Network {
    fn publish(&self, wanted: &Wanted) -> Publishing {
        let row = self.rows.iter().find(|row| row.name == wanted.row).cloned();
        let (egress, env, credentials) = (self.egress.clone(), self.env.clone(), self.credentials.clone());
        let id = wanted.id.clone();
        Box::pin(async move {
            match row.as_ref().and_then(|row| row.key_source.as_ref()) {
                Some(KeySource::Certificate { from, name, .. }) => {
                    // The request was checked against the list already. This is the one place that fetches.
                    let (fetchable, url) = Fetchable::among(from, &id).ok_or("the URL is not in the list")?;
                    let pem = egress.fetch(&url, &fetchable.addresses, None).await?;
                    PublishedKey::of_certificate(&egress.trusted(&pem, name, env.now())?)
                }
                Some(KeySource::Api(fetchable)) => {
                    let url = fetchable.url.only().ok_or("the URL of the keys has a `*`")?;
                    let credentials = credentials.as_ref().and_then(|secret| secret.expose().split_once(':'));
                    let (client, secret) = credentials.ok_or("the source has no CLIENT_ID:SECRET")?;
                    let asked = json!({ "client_id": client, "secret": secret, "key_id": id });
                    let answer = egress.fetch(&url, &fetchable.addresses, Some(asked.to_string())).await?;
                    let answer: Value =
                        serde_json::from_slice(&answer).map_err(|_| "the answer with the key is no JSON")?;
                    PublishedKey::of_jwk(&answer, &id, env.now())
                }
                None => Err("the scheme has no such key".to_owned()),
            }
        })
    }
}
