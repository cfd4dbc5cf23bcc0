//! Ids that people paste. The id of a delivery, and the Message-ID or Idempotency-Key of what it sent, lead
//! to the delivery and so to its event: `dlv_7`, `<dlv_7.1@example.com>`, `dlv_7-2`.

use posthouse_model::DeliveryId;
use posthouse_store::DeliveryPlace;

use crate::admin::{Admin, error::ApiError};

impl Admin {
    /// The delivery that an id leads to. None if the store has no such delivery.
    pub(in crate::admin) async fn place(&self, id: &str) -> Result<Option<DeliveryPlace>, ApiError> {
        match delivery(id) {
            Some(delivery) => Ok(self.0.store.place_of(delivery).await?),
            None => Ok(None),
        }
    }
}

/// The delivery that a text names, alone or at the beginning of the id of a mail or request that it sent.
pub(in crate::admin) fn delivery(text: &str) -> Option<DeliveryId> {
    let text = text.trim();
    let inner = text.strip_prefix('<').map_or(text, |rest| rest.trim_end_matches('>'));
    let number = inner.strip_prefix("dlv_")?;
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    let (number, rest) = number.split_at(end);
    let fits = rest.is_empty() || rest.starts_with(['.', '-']);
    number.parse().ok().filter(|_| fits).map(DeliveryId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_delivery_sent_leads_to_it() {
        for text in
            ["dlv_7", " dlv_7\n", "<dlv_7.1@example.com>", "dlv_7.1@example.com", "dlv_7-2", "<dlv_7.12"]
        {
            assert_eq!(delivery(text), Some(DeliveryId(7)), "{text}");
        }
        for text in ["", "7", "dlv_", "dlv_x", "dlv_7x", "evt_7", "dlv_99999999999999999999"] {
            assert_eq!(delivery(text), None, "{text}");
        }
    }
}
