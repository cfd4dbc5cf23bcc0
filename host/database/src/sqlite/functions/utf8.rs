//! UTF-8 as SQLite reads it. SQLite accepts any bytes as a text.

/// Whether the byte continues a character.
pub(super) fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// The text before the first NUL. For many functions it ends there.
pub(super) fn until_nul(text: &[u8]) -> &[u8] {
    memchr::memchr(0, text).map_or(text, |end| &text[..end])
}

/// The length of the first character, in bytes; 0 if there is none.
pub(super) fn length(text: &[u8]) -> usize {
    match text.first() {
        None => 0,
        Some(&first) if first >= 0xc0 => {
            1 + text[1..].iter().take_while(|byte| is_continuation(**byte)).count()
        }
        Some(_) => 1,
    }
}

/// Takes the first character; 0 if there is none, which SQLite reads as the end.
pub(super) fn read(text: &mut &[u8]) -> u32 {
    let (character, rest) = text.split_at(length(text));
    *text = rest;
    let Some((&first, more)) = character.split_first() else { return 0 };
    if first < 0xc0 {
        return u32::from(first);
    }
    let bits = match first {
        0xc0..=0xdf => first & 0x1f,
        0xe0..=0xef => first & 0x0f,
        0xf0..=0xf7 => first & 0x07,
        0xf8..=0xfb => first & 0x03,
        0xfd => 1,
        _ => 0,
    };
    let mut read = u32::from(bits);
    for byte in more {
        read = (read << 6).wrapping_add(u32::from(byte & 0x3f));
    }
    if read < 0x80 || read & 0xffff_f800 == 0xd800 { 0xfffd } else { read }
}
