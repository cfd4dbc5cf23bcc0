//! PostgreSQL's keywords, up to version 18: which words are names, and which are syntax.

use std::{collections::HashSet, sync::LazyLock};

/// Words that name no function unless they are quoted. Before a bracket they are syntax.
const RESERVED: &str = "all analyse analyze and any array as asc asymmetric between bigint bit boolean both case cast char \
    character check coalesce collate column constraint create current_catalog current_date \
    current_role current_time current_timestamp current_user dec decimal default deferrable desc \
    distinct do else end except exists extract false fetch float for foreign from grant greatest group \
    grouping having in initially int integer intersect interval into lateral leading least limit \
    localtime localtimestamp national nchar normalize not null nullif numeric offset on only or order \
    placing position precision primary real references returning row select session_user \
    smallint some symmetric table then time timestamp to trailing trim true union unique \
    user using values varchar variadic when where window with xmlattributes xmlconcat xmlelement \
    xmlexists xmlforest xmlparse xmlpi xmlroot xmlserialize";

/// Words that are syntax or a function: `left` is a join and a function.
const RESERVED_BUT_CALLED: &str = "authorization binary collation concurrently cross current_schema freeze full ilike inner is isnull \
    join left like natural notnull outer overlaps right similar tablesample verbose";

/// All other keywords. Each may name a function.
const OTHERS: &str = "abort absolute access action add admin after aggregate also alter always asensitive assertion \
    assignment at atomic attach attribute backward before begin breadth by cache call called cascade \
    cascaded catalog chain characteristics checkpoint class close cluster columns comment comments \
    commit committed compression conditional configuration conflict connection constraints content \
    continue conversion copy cost csv cube current cursor cycle data database day deallocate declare \
    defaults deferred definer delete delimiter delimiters depends depth detach dictionary disable \
    discard document domain double drop each empty enable encoding encrypted enforced enum error \
    escape event exclude excluding exclusive execute explain expression extension external family \
    filter finalize first following force format forward function functions generated global granted \
    groups handler header hold hour identity if immediate immutable implicit import include including \
    increment indent index indexes inherit inherits inline inout input insensitive insert instead \
    invoker isolation json json_array json_arrayagg json_exists json_object json_objectagg json_query \
    json_scalar json_serialize json_table json_value keep key keys label language large last leakproof \
    level listen load local location lock locked logged lsn mapping match matched materialized \
    maxvalue merge merge_action method minute minvalue mode month move name names nested new next nfc \
    nfd nfkc nfkd no none normalized nothing notify nowait nulls object objects of off oids old omit \
    operator option options ordinality others out over overlay overriding owned owner parallel parameter \
    parser partial partition passing password path period plan plans policy preceding prepare prepared \
    preserve prior privileges procedural procedure procedures program publication quote quotes range \
    read reassign recheck recursive ref referencing refresh reindex relative release rename repeatable \
    replace replica reset respect restart restrict return returns revoke role rollback rollup routine \
    routines rows rule savepoint scalar schema schemas scroll search second security sequence \
    sequences serializable server session set setof sets share show simple skip snapshot source sql \
    stable standalone start statement statistics stdin stdout storage stored strict string strip \
    subscription substring support sysid system system_user tables tablespace target temp template temporary \
    text ties transaction transform treat trigger truncate trusted type types uescape unbounded \
    uncommitted unconditional unencrypted unknown unlisten unlogged until update vacuum valid validate \
    validator value varying version view views virtual volatile wait whitespace within without work \
    wrapper write xml xmlnamespaces xmltable year yes zone";

fn set(words: &'static [&'static str]) -> HashSet<&'static str> {
    words.iter().flat_map(|words| words.split_ascii_whitespace()).collect()
}

/// Whether the word, unquoted and before a bracket, is syntax and not a call.
pub(super) fn is_syntax(word: &str) -> bool {
    static SYNTAX: LazyLock<HashSet<&'static str>> = LazyLock::new(|| set(&[RESERVED]));
    SYNTAX.contains(word)
}

/// Whether the word, unquoted and before a bracket, is syntax or a call.
pub(super) fn is_syntax_or_call(word: &str) -> bool {
    static EITHER: LazyLock<HashSet<&'static str>> = LazyLock::new(|| set(&[RESERVED_BUT_CALLED]));
    EITHER.contains(word)
}

/// Whether the word is a keyword. An expression may follow a keyword.
pub(super) fn is_keyword(word: &str) -> bool {
    static ALL: LazyLock<HashSet<&'static str>> =
        LazyLock::new(|| set(&[RESERVED, RESERVED_BUT_CALLED, OTHERS]));
    ALL.contains(word)
}
