//! The statements that hold a SQLite database the longest, as far as we know. One test checks that each of
//! them ends, and a bench measures when.

/// A bad statement.
pub struct Worst {
    /// The reason why it is bad, in a few words.
    pub what: &'static str,
    /// The operator's statements before, which prepare the database.
    pub before: String,
    /// The plugin's statement before, in the same transaction.
    pub first: String,
    /// The statement itself.
    pub statement: String,
    /// The values of `$1` and so on, as texts.
    pub parameters: Vec<String>,
}

/// A megabyte, as the length of a text.
const MIB: usize = 1 << 20;

/// A table of many rows, some 5 MB.
const ROWS: &str = "CREATE TABLE many (id INTEGER PRIMARY KEY, name TEXT, n INTEGER);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 60000)
INSERT INTO many SELECT i, printf('name %.50d', i), i % 1000 FROM c;";

/// An endless series of numbers.
const ENDLESS: &str = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c)";

fn worst(what: &'static str, statement: impl Into<String>) -> Worst {
    Worst {
        what,
        before: String::new(),
        first: String::new(),
        statement: statement.into(),
        parameters: vec![],
    }
}

impl Worst {
    fn of(mut self, parameters: impl IntoIterator<Item = String>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    fn with_rows(mut self) -> Self {
        self.before.push_str(ROWS);
        self
    }

    fn after(mut self, before: impl AsRef<str>) -> Self {
        self.before.push_str(before.as_ref());
        self
    }

    fn then(mut self, first: impl Into<String>) -> Self {
        self.first = first.into();
        self
    }
}

/// `count` results of `each`, joined by `by`.
fn many(count: usize, by: &str, each: impl Fn(usize) -> String) -> String {
    (0..count).map(each).collect::<Vec<_>>().join(by)
}

/// `x + x` of `x + x` of …, with each level in parentheses in the next.
fn doubling(levels: usize) -> String {
    (0..levels)
        .fold("SELECT n AS x FROM t".to_owned(), |inner, _| format!("SELECT x + x AS x FROM ({inner})"))
}

/// All bad statements. Their parameters fit `sql_bytes` of 4 MiB.
pub fn worst_statements() -> Vec<Worst> {
    let a = |bytes: usize| "a".repeat(bytes);
    let almost = || a(MIB) + "b";
    let json = || format!("[{}1]", "1,".repeat(MIB));
    let object = |name: char| format!("{{{}}}", many(90_000, ",", |at| format!("\"{name}{at}\":1")));
    let table = "CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1);";
    vec![
        worst("`instr` of a text that is nearly there everywhere", "SELECT instr($1, $2)").of([a(2 * MIB), almost()]),
        worst("`replace` of the same", "SELECT length(replace($1, $2, ''))").of([a(2 * MIB), almost()]),
        worst("`trim` of as many characters", "SELECT length(trim($1, $2))").of(["b".repeat(2 * MIB), almost()]),
        worst("`unhex` that passes over as many", "SELECT unhex($1, $2)").of(["b".repeat(2 * MIB), almost()]),
        worst("`LIKE` that starts again at each character", "SELECT $1 LIKE $2")
            .of([a(3 * MIB), format!("%{}b", "a_".repeat(499))]),
        worst("`GLOB` that starts again at each character", "SELECT $1 GLOB $2").of([a(3 * MIB), format!("*{}b", "[a]".repeat(332))]),
        worst("`LIKE` for each of many rows", format!("{ENDLESS} SELECT count(*) FROM c WHERE $1 LIKE $2 || i"))
            .of([a(MIB), format!("%{}b", "_a".repeat(480))]),
        worst("the same in a `CHECK`", "INSERT INTO checked VALUES ($1)")
            .then("CREATE TABLE checked (a TEXT CHECK (a NOT LIKE '%' || printf('%.990c', 'a') || 'b'))")
            .of([a(3 * MIB)]),
        worst("`instr` in a column that is generated", "INSERT INTO made (a) VALUES ($1)")
            .then("CREATE TABLE made (a TEXT, at AS (instr(a, substr(a, 2) || 'b')) STORED)")
            .of([a(3 * MIB)]),
        worst("`json_patch` of wide documents", "SELECT length(json_patch($1, $2))").of([object('a'), object('b')]),
        worst(
            "`json_set` of many paths",
            format!("SELECT length(json_set($1, {}))", many(49, ", ", |at| format!("'$[{}]', 'a'", at + MIB / 2))),
        )
        .of([json()]),
        worst(
            "2,000 paths in one document",
            format!("SELECT {}", many(2000, ", ", |at| format!("json_extract($1, '$[{}]')", at + MIB / 2))),
        )
        .of([json()]),
        worst(
            "900 copies of a long text in one row",
            format!("SELECT length({})", many(900, " || ", |at| format!("upper($1 || {at})"))),
        )
        .of([a(4 * MIB - 100)]),
        worst(
            "1,500 results in one row",
            format!("SELECT {}", many(1500, ", ", |at| format!("length(lower($1 || {at}))"))),
        )
        .of([a(4 * MIB - 100)]),
        worst(
            "1,500 comparisons of long texts",
            format!("SELECT {}", many(1500, ", ", |at| format!("$1 || {at} = $2 || {at} COLLATE NOCASE"))),
        )
        .of([a(2 * MIB - 100), a(2 * MIB - 100)]),
        worst("numbers without end", format!("{ENDLESS} SELECT max(i) FROM c")),
        worst("a join of everything with everything", "SELECT count(*) FROM many a, many b, many c").with_rows(),
        worst("a join of 60 tables", {
            let tables = many(60, ", ", |at| format!("many t{at}"));
            let terms = many(59, " AND ", |at| format!("t{at}.n = t{}.id", (at * 7 + 1) % 60));
            format!("SELECT 1 FROM {tables} WHERE {terms} ORDER BY t1.name")
        })
        .with_rows(),
        worst("all rows deleted", "DELETE FROM many").with_rows(),
        worst("a table dropped", "DROP TABLE many").with_rows(),
        worst("an index on what is computed", "CREATE INDEX i ON many (replace(name, '0', printf('%.2000c', 'a')))")
            .with_rows(),
        worst("a column dropped", "ALTER TABLE many DROP COLUMN n").with_rows(),
        worst("a sort without end", format!("{ENDLESS} SELECT a.name FROM many a, c ORDER BY a.name || i")).with_rows(),
        worst("a window over all rows, for each", "
            SELECT max(length(names)) FROM (SELECT group_concat(name) OVER (ORDER BY id ROWS BETWEEN 20000 PRECEDING
            AND CURRENT ROW EXCLUDE TIES) AS names FROM many)")
        .with_rows(),
        worst("rows written that are undone", "UPDATE many SET name = name || 'x' RETURNING id, name").with_rows(),
        worst("subqueries that double 30 times", doubling(30)).after(table),
        worst("views that double 30 times", "SELECT x FROM v30").after(format!(
            "{table} CREATE VIEW v0 AS SELECT n AS x FROM t; {}",
            many(30, ";", |at| format!("CREATE VIEW v{} AS SELECT x + x AS x FROM v{at}", at + 1))
        )),
        worst(
            "common table expressions that double 30 times",
            format!(
                "WITH w0(x) AS (SELECT n FROM t), {} SELECT x FROM w30",
                many(30, ", ", |at| format!("w{}(x) AS (SELECT x + x FROM w{at})", at + 1))
            ),
        )
        .after(table),
        worst(
            "joins of a view with itself, 16 times",
            "SELECT count(*) FROM v16",
        )
        .after(format!(
            "{table} CREATE VIEW v0 AS SELECT n FROM t; {}",
            many(16, ";", |at| format!("CREATE VIEW v{} AS SELECT a.n FROM v{at} a, v{at} b", at + 1))
        )),
        worst(
            "generated columns that double 30 times",
            format!(
                "CREATE TABLE g (c0 INTEGER, {})",
                many(30, ", ", |at| format!("c{} AS (c{at} + c{at})", at + 1))
            ),
        ),
        worst("many sums", format!("SELECT {} FROM many", many(1990, ", ", |at| format!("sum(n + {at})"))))
            .with_rows(),
        worst("many windows", {
            let window = |at| format!("sum(n) OVER (PARTITION BY name ORDER BY n ROWS {at} PRECEDING)");
            format!("SELECT {} FROM many", many(900, ", ", window))
        })
        .with_rows(),
        worst("many terms", {
            let terms = many(40, " AND ", |_| {
                format!("({})", many(60, " OR ", |at| format!("id = {at} OR n = {}", at + 7)))
            });
            format!("SELECT count(*) FROM many WHERE {terms}")
        })
        .with_rows(),
        worst("a date in a format of a megabyte", "SELECT length(strftime($1, 'now'))").of(["%J".repeat(MIB / 2)]),
        worst("chance, by the gigabyte", format!("{ENDLESS} SELECT max(length(hex(randomblob(1900000)))) FROM c")),
    ]
}
