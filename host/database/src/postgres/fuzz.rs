//! Fuzz targets for the messages of a PostgreSQL, and the part of the guard's target that asks one.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target panics where a promise is broken")]

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, types::Type};

use super::{
    frames::{Bound, Frames},
    values,
};
use crate::guard::Checked;

/// The first two bytes are the bound. The third sets the size of the pieces. The rest is the stream.
///
/// A message beyond the bound is found however the stream is cut, and no other message is.
pub fn frames(input: &[u8]) {
    let [high, low, cut, stream @ ..] = input else { return };
    let most = usize::from(u16::from_be_bytes([*high, *low]));
    let bound = Bound::default();
    bound.set(most);
    let mut frames = Frames::default();
    let pieces = stream.chunks(usize::from(*cut).max(1));
    let passed = pieces.into_iter().try_for_each(|piece| frames.pass(piece, &bound));

    let (mut rest, mut over, mut changed) = (stream, None, false);
    while let [kind, a, b, c, d, after @ ..] = rest {
        let length = (u32::from_be_bytes([*a, *b, *c, *d]) as usize).saturating_sub(4);
        changed |= matches!(kind, b'S' | b'A');
        if length > most {
            over = Some(length);
            break;
        }
        rest = after.get(length..).unwrap_or_default();
    }
    assert_eq!((passed.is_err(), bound.over()), (over.is_some(), over));
    assert_eq!(bound.has_changed(), changed);
}

/// The types of columns that can be read.
const TYPES: [Type; 22] = [
    Type::BOOL,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::OID,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::BYTEA,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::DATE,
    Type::TIME,
    Type::JSON,
    Type::JSONB,
    Type::UUID,
    Type::VOID,
    Type::TEXT,
    Type::VARCHAR,
    Type::BPCHAR,
    Type::NAME,
    Type::XML,
];

/// The longest text of a number of a few bytes: its weight and its scale have 16 bits each.
const LONGEST_NUMBER: usize = 4 * 32_768 + 65_536 + 16;

/// The first byte selects the type of a column. The rest is a value of that type, as a server may send it.
pub fn values(input: &[u8]) {
    let Some((&ty, raw)) = input.split_first() else { return };
    let ty = &TYPES[usize::from(ty) % TYPES.len()];
    assert!(values::is_known(ty));
    let Some(value) = values::read(ty, raw) else { return };
    let size = format!("{value:?}").len();
    assert!(size <= 64 + LONGEST_NUMBER.max(8 * raw.len()), "{ty}: {size} bytes of {}", raw.len());
}

struct Server {
    runtime: Runtime,
    client: Client,
}

impl Server {
    fn connect(url: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the server");
            tokio::spawn(connection);
            client
        });
        Self { runtime, client }
    }
}

/// The server compiles the text or refuses it. It reads one statement, as the guard does, and no text or name
/// without an end.
pub(crate) fn agrees(url: &str, checked: &Checked) {
    thread_local! {
        static SERVER: std::cell::OnceCell<Server> = const { std::cell::OnceCell::new() };
    }
    SERVER.with(|server| {
        let Server { runtime, client } = server.get_or_init(|| Server::connect(url));
        let text = &checked.text;
        match runtime.block_on(client.prepare(text)) {
            Ok(statement) => assert_eq!(statement.params().len(), checked.parameters, "{text:?}"),
            Err(error) => {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{text:?}: {error}"));
                // By its beginning: further on, a message quotes the statement.
                let disagrees = ["cannot insert multiple commands", "unterminated"];
                assert!(
                    !disagrees.iter().any(|words| error.message().starts_with(words)),
                    "{text:?}: {}",
                    error.message()
                );
            }
        }
    });
}
