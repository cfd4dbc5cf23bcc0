//! `sql` of the package.

use super::bindings::posthouse::plugin::sql;
use crate::imports::{Call, Door};

impl sql::Host for Door {
    async fn query(
        &mut self,
        _statement: String,
        _parameters: Vec<sql::Value>,
    ) -> wasmtime::Result<Result<sql::Rows, sql::Error>> {
        self.denied(Call::SqlQuery, sql::Error::Denied)
    }

    async fn execute(
        &mut self,
        _statement: String,
        _parameters: Vec<sql::Value>,
    ) -> wasmtime::Result<Result<u64, sql::Error>> {
        self.denied(Call::SqlExecute, sql::Error::Denied)
    }
}
