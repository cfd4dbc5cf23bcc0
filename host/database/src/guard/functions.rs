//! The functions of PostgreSQL that a statement may call without a grant: those that only compute.
//!
//! A function on the list reads and changes no table, runs no text as SQL, and keeps nothing in the session. It
//! opens no file and no connection. `nextval` is the exception: it advances a sequence, which stays advanced if
//! the attempt fails.
//!
//! The list need not be complete, since the operator can grant any other function. It includes functions of
//! later versions: a server without one reports an error.

use std::{collections::HashSet, sync::LazyLock};

/// Functions in the schema `pg_catalog`, by subject.
const BUILT_IN: [&str; 12] = [
    // Aggregates and window functions.
    "any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp \
     cume_dist dense_rank every first_value json_agg json_object_agg jsonb_agg jsonb_object_agg lag \
     last_value lead max min mode nth_value ntile percent_rank percentile_cont percentile_disc \
     range_agg range_intersect_agg rank regr_avgx regr_avgy regr_count regr_intercept regr_r2 \
     regr_slope regr_sxx regr_sxy regr_syy row_number stddev stddev_pop stddev_samp string_agg sum \
     var_pop var_samp variance xmlagg",
    // Numbers.
    "abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd \
     cosh cot cotd degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale \
     mod pi pow power radians random random_normal round scale sign sin sind sinh sqrt tan tand tanh \
     to_bin to_hex to_oct trim_scale trunc width_bucket",
    // Texts and bytes.
    "ascii bit_count bit_length btrim casefold char_length character_length chr concat concat_ws \
     convert convert_from convert_to crc32 crc32c decode encode format get_bit get_byte initcap \
     is_normalized left length lower lpad ltrim md5 normalize octet_length overlay parse_ident position \
     quote_ident quote_literal quote_nullable regexp_count regexp_instr regexp_like regexp_match \
     regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat \
     replace reverse right rpad rtrim set_bit set_byte sha224 sha256 sha384 sha512 split_part \
     starts_with string_to_array string_to_table strpos substr substring to_ascii to_char to_number \
     translate unistr upper",
    // Times.
    "age clock_timestamp date_add date_bin date_part date_subtract date_trunc isfinite justify_days \
     justify_hours justify_interval make_date make_interval make_time make_timestamp make_timestamptz \
     now statement_timestamp timeofday timezone to_date to_timestamp transaction_timestamp",
    // JSON.
    "array_to_json json json_array json_array_elements json_array_elements_text json_array_length \
     json_arrayagg json_build_array json_build_object json_each json_each_text json_exists \
     json_extract_path json_extract_path_text json_object json_object_keys json_objectagg \
     json_populate_record json_populate_recordset json_query json_scalar json_serialize \
     json_strip_nulls json_to_record json_to_recordset json_typeof json_value jsonb_array_elements \
     jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_concat \
     jsonb_delete jsonb_delete_path jsonb_each jsonb_each_text jsonb_exists jsonb_exists_all \
     jsonb_exists_any jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object \
     jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz \
     jsonb_path_query jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first \
     jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset \
     jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset \
     jsonb_typeof row_to_json to_json to_jsonb",
    // Arrays, ranges, rows and enumerations.
    "array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position \
     array_positions array_prepend array_remove array_replace array_reverse array_sample array_shuffle \
     array_sort array_to_string array_upper cardinality enum_first enum_last enum_range generate_series \
     generate_subscripts isempty lower_inc lower_inf multirange num_nonnulls num_nulls range_merge \
     trim_array unnest upper_inc upper_inf",
    // Identifiers and sequences.
    "gen_random_uuid nextval uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7",
    // Full-text search.
    "array_to_tsvector get_current_ts_config json_to_tsvector jsonb_to_tsvector numnode \
     phraseto_tsquery plainto_tsquery querytree setweight strip to_tsquery to_tsvector ts_delete \
     ts_filter ts_headline ts_rank ts_rank_cd tsquery_phrase tsvector_to_array websearch_to_tsquery",
    // Networks and geometry.
    "abbrev area bound_box broadcast center diagonal diameter family height host hostmask inet_merge \
     inet_same_family isclosed ishorizontal isopen isparallel isperp isvertical macaddr8_set7bit \
     masklen netmask network npoints pclose popen radius set_masklen slope width",
    // XML.
    "xml_is_well_formed xml_is_well_formed_content xml_is_well_formed_document xmlcomment xpath \
     xpath_exists",
    // Types that can be written as a function.
    "bool box bpchar bytea char cidr circle date datemultirange daterange float4 float8 inet int2 int4 \
     int4multirange int4range int8 int8multirange int8range interval line lseg macaddr macaddr8 money \
     name numeric nummultirange numrange path point polygon text time timestamp timestamptz timetz \
     tsmultirange tsrange tstzmultirange tstzrange varbit varchar xml",
    // About values and the server.
    "merge_action pg_column_size pg_input_error_info pg_input_is_valid pg_typeof version",
];

/// Whether a statement may call the function of this name in the schema `pg_catalog`.
pub(super) fn is_built_in(name: &str) -> bool {
    static ALL: LazyLock<HashSet<&'static str>> =
        LazyLock::new(|| BUILT_IN.iter().flat_map(|names| names.split_ascii_whitespace()).collect());
    ALL.contains(name)
}

/// All names on the list.
#[cfg(test)]
pub(crate) fn built_in() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().flat_map(|names| names.split_ascii_whitespace())
}
