//! Reads mail addresses.

use lettre::{Address, address::AddressError, message::Mailbox};

use super::ascii_domain;

/// Why a text is no mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// It does not have the form of RFC 5322.
    #[error(transparent)]
    Form(#[from] AddressError),
    /// Its domain can't become a domain name.
    #[error("its domain is none")]
    Domain,
}

/// Reads an address of RFC 5322, with a name before it or without. Its domain becomes ASCII, in lower case, which
/// every mail server accepts; see [`ascii_domain`]. The length is not limited.
///
/// # Errors
/// [`MailboxError`] if the text is no address.
pub fn mailbox(text: &str) -> Result<Mailbox, MailboxError> {
    let Mailbox { name, email } = text.parse()?;
    let domain = ascii_domain(email.domain()).ok_or(MailboxError::Domain)?;
    Ok(Mailbox { name, email: Address::new(email.user(), domain)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_becomes_ascii_and_the_name_stays() {
        let ada = mailbox("Ada Lovelace <Ada@BÜCHER.example>").unwrap();
        assert_eq!(ada.name.as_deref(), Some("Ada Lovelace"));
        assert_eq!((ada.email.user(), ada.email.domain()), ("Ada", "xn--bcher-kva.example"));
        assert_eq!(mailbox("bob@Example.com").unwrap().to_string(), "bob@example.com");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "nobody", "@example.com", "ada@", "ada@ü b.example", "a@b.example, c@d.example"] {
            assert!(mailbox(text).is_err(), "{text}");
        }
    }
}
