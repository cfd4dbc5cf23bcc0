//! The part of the guard's fuzz target that asks SQLite.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target panics where a promise is broken")]

use std::cell::RefCell;

use rusqlite::{
    Connection, Error,
    hooks::{AuthContext, Authorization},
};

use super::{authorizer, nesting};
use crate::{fuzz::TABLES, guard::Checked};

/// SQLite compiles the text or refuses it. If it compiles, it is one statement, it only reads if the guard says
/// so, and it has no parameter that the guard did not see.
pub(crate) fn agrees(checked: &Checked) {
    thread_local! {
        static SQLITE: RefCell<Connection> = {
            let connection = Connection::open_in_memory().expect("SQLite");
            connection.execute_batch(TABLES).expect("tables");
            RefCell::new(connection)
        };
    }
    SQLITE.with_borrow_mut(|connection| {
        if nesting::check(connection, &checked.text).is_err() {
            return;
        }
        let does = checked.does;
        let hook = move |context: AuthContext<'_>| match authorizer::check(does, context) {
            Ok(()) => Authorization::Allow,
            Err(_) => Authorization::Deny,
        };
        connection.authorizer(Some(hook)).expect("an authorizer");
        let prepared = connection.prepare(&checked.text);
        match &prepared {
            Ok(statement) => {
                assert!(!checked.reads || statement.readonly(), "{:?} writes", checked.text);
                assert!(statement.parameter_count() <= checked.parameters, "{:?}", checked.text);
            }
            Err(Error::MultipleStatement) => panic!("{:?} is several statements", checked.text),
            Err(_) => {}
        }
        drop(prepared);
        connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).expect("no authorizer");
    });
}
