//! Fuzz target for the bytes of any peer: the framing of HTTP/1.

use super::framing::{self, Framing};

/// The first byte sets the size of the pieces. The rest is the stream.
///
/// The end of a message does not depend on how its bytes arrive.
pub(crate) fn framing(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else { return };
    let cut = usize::from(cut).max(1);
    let whole = framing::head(stream, 0);
    // The same, but checked again with each piece, as the gate does.
    let (mut seen, mut searched) = (0, 0);
    let pieces = loop {
        seen = (seen + cut).min(stream.len());
        match framing::head(&stream[..seen], searched) {
            Ok(None) if seen < stream.len() => searched = seen,
            end => break end,
        }
    };
    let is_complete = matches!(whole, Ok(Some(_)));
    // A head that is too large may be refused before its end arrives.
    assert!(pieces == whole || (!is_complete && pieces.is_err()), "{pieces:?}, {whole:?}");
    let Ok(Some((length, framing))) = whole else { return };
    assert!(length <= stream.len() && length <= framing::MAX_HEAD);

    let body = &stream[length..];
    // A message without a body is complete before the first piece.
    let at_once = end(framing.clone(), [&b""[..], body].into_iter());
    let in_pieces = end(framing, [&b""[..]].into_iter().chain(body.chunks(cut)));
    assert_eq!(at_once, in_pieces);
    if let Some((taken, _)) = at_once {
        assert!(taken <= body.len());
    }
}

/// How much of a body its framing consumes, and whether it is complete then. None if it is malformed.
fn end<'a>(mut framing: Framing, pieces: impl Iterator<Item = &'a [u8]>) -> Option<(usize, bool)> {
    let mut taken = 0;
    for piece in pieces {
        let (here, complete) = framing.take(piece).ok()?;
        taken += here;
        if complete {
            return Some((taken, true));
        }
    }
    Some((taken, false))
}
