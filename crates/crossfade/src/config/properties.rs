//! Any text as a configuration file: it is read, or refused with places that are in it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a file is made of, right and wrong.
fn text() -> impl Strategy<Value = String> {
    let part = proptest::sample::select(vec![
        "[source]",
        "[target]",
        "[[tables]]",
        "[copy]",
        "[apply]",
        "[copy",
        "[[",
        "]]",
        "url",
        "match",
        "streams",
        "mode",
        "name",
        "\"postgres://u:${PW}@h/d\"",
        "\"${NOPE}\"",
        "\"${\"",
        "\"auto\"",
        "'é'",
        "é",
        "😀",
        "\"",
        "'''",
        "\"\"\"",
        "= ",
        "=",
        " ",
        "\n",
        "\r\n",
        "\t",
        "0",
        "-1",
        "18446744073709551615",
        "1e9",
        "{",
        "}",
        ".",
        ",",
        "#",
        "\u{0}",
        "\u{feff}",
        "\\u12",
        "true",
        "1979-05-27",
    ]);
    prop_oneof![4 => vec(part, 0..24).prop_map(|parts| parts.concat()), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_or_refused_with_its_place(text in text()) {
        let read = parse(&text, Path::new(FILE), &|name| (name == "PW").then(|| "s3cret".to_owned()));
        if let Err(error) = read {
            let Error::Refused { places } = &error else { panic!("{error}") };
            prop_assert!(!places.is_empty());
            for place in places {
                // A mistake at the very end is behind the last line.
                let line = text.split('\n').nth(place.line - 1);
                prop_assert!(line.is_some_and(|line| line.starts_with(&place.text)), "{:?}", place);
                let behind = place.text.chars().count() + 2;
                prop_assert!(place.column <= behind && place.width <= behind, "{:?}", place);
            }
            let shown = format!("{error} {:?}", error.hint());
            prop_assert!(!shown.contains("s3cret"), "{}", shown);
        }
    }

    #[test]
    fn nothing_is_left_of_a_password(password in "[a-zA-Z0-9%!*+._~-]{6,20}", around in "[ \"'<>é\n]{0,3}") {
        // Nothing that is in the text anyway.
        prop_assume!(!"scheme user shop example password".contains(&password));
        for text in [
            format!("{around}postgres://user:{password}@example/shop{around}"),
            format!("{around}postgres://user@example/shop?password={password}{around}"),
            format!("{around}host=example password={password} user=user{around}"),
            format!("{around}PASSWORD='{password}' host=example{around}"),
        ] {
            let shown = crate::redact::redact(&text);
            prop_assert!(!shown.contains(&password), "{} → {}", text, shown);
        }
    }
}
