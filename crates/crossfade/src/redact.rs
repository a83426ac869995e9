//! Takes secrets out of text before anybody sees it.
//!
//! There is one function, and everything that may hold a URL goes through it: messages, files, the log of
//! the demo. It would rather hide too much than too little.

/// The text with every password replaced: in `scheme://user:password@host`, and after `password=`.
pub(crate) fn redact(text: &str) -> String {
    parameters(&authorities(text))
}

const HIDDEN: &str = "***";

fn authorities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let word =
            &after[..after.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(after.len())];
        let kept = match user_end(word) {
            Some(end) => {
                match word[..end].split_once(':') {
                    Some((user, password)) => {
                        out.push_str(user);
                        out.push(':');
                        out.push_str(if is_variable(password) { password } else { HIDDEN });
                    }
                    None => out.push_str(&word[..end]),
                }
                end
            }
            None => 0,
        };
        rest = &after[kept..];
    }
    out.push_str(rest);
    out
}

/// `${NAME}`: where the password comes from, and not the password.
fn is_variable(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// Where `user:password` ends. A password may hold characters that should have been percent-encoded: when
/// what looks like a port is no number, the `@` further on still ends the password.
fn user_end(word: &str) -> Option<usize> {
    let authority = &word[..word.find(['/', '?', '#']).unwrap_or(word.len())];
    authority.rfind('@').or_else(|| {
        let (_, port) = authority.rsplit_once(':')?;
        if port.bytes().all(|b| b.is_ascii_digit()) { None } else { word.rfind('@') }
    })
}

fn parameters(text: &str) -> String {
    const NAME: &str = "password=";
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(found) = lower[done..].find(NAME) {
        let value = done + found + NAME.len();
        out.push_str(&text[done..value]);
        let tail = &text[value..];
        let len = match tail.strip_prefix('\'') {
            Some(quoted) => quoted.find('\'').map_or(tail.len(), |end| end + 2),
            None => tail.find(|c: char| c.is_whitespace() || "&;,\"'`".contains(c)).unwrap_or(tail.len()),
        };
        out.push_str(HIDDEN);
        done = value + len;
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_passwords_and_nothing_else() {
        for (text, shown) in [
            ("postgres://app@old/shop", "postgres://app@old/shop"),
            ("postgres://app:s3cret@old/shop", "postgres://app:***@old/shop"),
            ("postgres://app:s3@cret@old:5432/shop", "postgres://app:***@old:5432/shop"),
            ("postgres://app:a/b?c@old/shop", "postgres://app:***@old/shop"),
            ("postgres://old:5432/shop?options=a@b", "postgres://old:5432/shop?options=a@b"),
            ("postgres://app:${PW}@old/shop", "postgres://app:${PW}@old/shop"),
            ("postgres://app:${PW}x${}@old/shop", "postgres://app:***@old/shop"),
            ("postgres://:s3cret@old/shop", "postgres://:***@old/shop"),
            ("postgres://old/shop?user=a&password=b&x=1", "postgres://old/shop?user=a&password=***&x=1"),
            ("host=old PASSWORD='a b' dbname=shop", "host=old PASSWORD=*** dbname=shop"),
            (
                "from \"mysql://a:b@c/d\" to 'mysql://e:f@g/h'",
                "from \"mysql://a:***@c/d\" to 'mysql://e:***@g/h'",
            ),
            ("sqlite:shop.db and sqlite:///a/b.db", "sqlite:shop.db and sqlite:///a/b.db"),
            ("pässword=x password=ü", "pässword=x password=***"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }
}
