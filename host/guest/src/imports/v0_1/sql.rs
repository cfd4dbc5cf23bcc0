//! `sql` of the package.

use posthouse_database::{Rows, Value};

use super::bindings::posthouse::plugin::sql;
use crate::imports::{
    call::{HostCall, answered},
    sql::SqlError,
    state::HostState,
};

impl sql::Host for HostState {
    async fn query(
        &mut self,
        statement: String,
        parameters: Vec<sql::Value>,
    ) -> wasmtime::Result<Result<sql::Rows, sql::Error>> {
        let call = HostCall::SqlQuery { statement, parameters: values(parameters) };
        let rows = answered!(self.call(call).await?, SqlQuery)?;
        Ok(rows.map(sql::Rows::from).map_err(sql::Error::from))
    }

    async fn execute(
        &mut self,
        statement: String,
        parameters: Vec<sql::Value>,
    ) -> wasmtime::Result<Result<u64, sql::Error>> {
        let call = HostCall::SqlExecute { statement, parameters: values(parameters) };
        Ok(answered!(self.call(call).await?, SqlExecute)?.map_err(sql::Error::from))
    }
}

fn values(values: Vec<sql::Value>) -> Vec<Value> {
    values.into_iter().map(Value::from).collect()
}

impl From<sql::Value> for Value {
    fn from(value: sql::Value) -> Self {
        match value {
            sql::Value::Null => Self::Null,
            sql::Value::Boolean(value) => Self::Boolean(value),
            sql::Value::Integer(value) => Self::Integer(value),
            sql::Value::Float(value) => Self::Float(value),
            sql::Value::Text(value) => Self::Text(value),
            sql::Value::Bytes(value) => Self::Bytes(value),
            sql::Value::Timestamp(value) => Self::Timestamp(value),
            sql::Value::Json(value) => Self::Json(value),
            sql::Value::Uuid(value) => Self::Uuid(value),
        }
    }
}

impl From<Value> for sql::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => Self::Boolean(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Float(value) => Self::Float(value),
            Value::Text(value) => Self::Text(value),
            Value::Bytes(value) => Self::Bytes(value),
            Value::Timestamp(value) => Self::Timestamp(value),
            Value::Json(value) => Self::Json(value),
            Value::Uuid(value) => Self::Uuid(value),
        }
    }
}

impl From<Rows> for sql::Rows {
    fn from(rows: Rows) -> Self {
        let values = |row: Vec<Value>| row.into_iter().map(sql::Value::from).collect();
        Self { columns: rows.columns, rows: rows.rows.into_iter().map(values).collect() }
    }
}

impl From<SqlError> for sql::Error {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Denied(text) => Self::Denied(text),
            SqlError::Refused(text) => Self::Refused(text),
            SqlError::Statement { sqlstate, message } => {
                Self::Statement(sql::StatementError { sqlstate, message })
            }
            SqlError::Limit(text) => Self::Limit(text),
        }
    }
}
