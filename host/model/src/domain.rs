//! Gives each domain name one spelling.

/// The domain in ASCII, as DNS and mail servers without SMTPUTF8 know it. Labels with other letters become
/// Punycode (UTS 46, as in browsers). A domain that is ASCII already is returned in lower case and otherwise
/// unchanged, including address literals such as `[192.0.2.1]`.
///
/// None if the text can't become a domain name.
pub fn ascii_domain(domain: &str) -> Option<String> {
    if domain.is_ascii() {
        return Some(domain.to_ascii_lowercase());
    }
    idna::domain_to_ascii_strict(domain).ok().filter(|ascii| !ascii.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_domain_is_the_same_in_ascii() {
        for (domain, ascii) in [
            ("example.com", "example.com"),
            ("Example.COM", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example", "xn--bcher-kva.example"),
            ("bu\u{308}cher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("bücher\u{3002}example", "xn--bcher-kva.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("[192.0.2.1]", "[192.0.2.1]"),
        ] {
            assert_eq!(ascii_domain(domain).as_deref(), Some(ascii), "{domain}");
        }
        assert_eq!(ascii_domain("\u{ad}"), None);
        assert_eq!(ascii_domain("ü b.example"), None);
    }
}
