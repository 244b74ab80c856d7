//! As much of the Caddyfile's grammar as a hub's configuration needs: words, quotes, blocks, comments and
//! placeholders for variables.

use std::collections::BTreeMap;

/// A line: its first word, the others, and the block that it opens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) block: Vec<Self>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// How deep blocks may stand in blocks.
const DEEPEST: usize = 32;

/// Reads a whole file, or the lines of one block.
pub(super) fn parse(
    text: &str,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<Directive>, String> {
    let text = substitute(text.trim_start_matches('\u{feff}'), variables);
    let mut tokens = tokens(&text)?.into_iter().peekable();
    let directives = block(&mut tokens, 0)?;
    match tokens.next() {
        None => Ok(without_braces(directives)),
        Some(_) => Err("it closes a block that it has not opened".to_owned()),
    }
}

/// A file of one site needs no braces around it: its first line is the site's name.
fn without_braces(mut directives: Vec<Directive>) -> Vec<Directive> {
    let is_hub = |one: &Directive| one.name == "mercure";
    match directives.first() {
        Some(first)
            if first.block.is_empty() && !is_hub(first) && directives.iter().any(is_hub) =>
        {
            let mut site = directives.remove(0);
            site.block = directives;
            vec![site]
        }
        _ => directives,
    }
}

fn block(
    tokens: &mut std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
) -> Result<Vec<Directive>, String> {
    if depth > DEEPEST {
        return Err(format!("it has blocks more than {DEEPEST} deep"));
    }
    let (mut directives, mut words) = (Vec::new(), Vec::new());
    let directive = |words: &mut Vec<String>, block| {
        let mut words = std::mem::take(words).into_iter();
        Directive { name: words.next().unwrap_or_default(), arguments: words.collect(), block }
    };
    while let Some(token) = tokens.peek() {
        match token {
            Token::Close => break,
            Token::Word(word) => words.push(word.clone()),
            Token::End if words.is_empty() => {}
            Token::End => directives.push(directive(&mut words, Vec::new())),
            Token::Open => {
                tokens.next();
                let inner = block(tokens, depth + 1)?;
                if tokens.peek() != Some(&Token::Close) {
                    return Err("it ends within a block".to_owned());
                }
                directives.push(directive(&mut words, inner));
            }
        }
        tokens.next();
    }
    if !words.is_empty() {
        directives.push(directive(&mut words, Vec::new()));
    }
    Ok(directives)
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let (mut tokens, mut letters) = (Vec::new(), text.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => tokens.push(Token::End),
            letter if letter.is_whitespace() => {}
            '#' => while letters.next_if(|letter| *letter != '\n').is_some() {},
            '"' | '`' => tokens.push(Token::Word(quoted(&mut letters, letter)?)),
            letter => {
                let mut word = String::from(letter);
                while let Some(letter) = letters.next_if(|letter| !letter.is_whitespace()) {
                    word.push(letter);
                }
                let ends_line = matches!(letters.peek(), Some('\r' | '\n'));
                tokens.push(match (word.as_str(), word.strip_prefix("<<")) {
                    ("{", _) => Token::Open,
                    ("}", _) => Token::Close,
                    (_, Some(marker)) if !marker.is_empty() && ends_line => {
                        Token::Word(heredoc(&mut letters, marker)?)
                    }
                    _ => Token::Word(word),
                });
            }
        }
    }
    tokens.push(Token::End);
    Ok(tokens)
}

fn quoted(
    letters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    quote: char,
) -> Result<String, String> {
    let mut word = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter == quote => return Ok(word),
            '\\' if quote == '"' && letters.peek() == Some(&'"') => {
                word.extend(letters.next());
            }
            letter => word.push(letter),
        }
    }
    Err("it has a quote that is not closed".to_owned())
}

/// The lines up to the one that begins with the marker, without what that one is indented by.
fn heredoc(
    letters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    marker: &str,
) -> Result<String, String> {
    let mut lines = Vec::new();
    while letters.peek().is_some() {
        let mut ahead = letters.clone();
        let blank = |letter: &char| letter.is_whitespace() && *letter != '\n';
        let indent: String = std::iter::from_fn(|| ahead.next_if(blank)).collect();
        let is_marker = marker.chars().all(|letter| ahead.next_if_eq(&letter).is_some());
        if is_marker && ahead.peek().is_none_or(|letter| letter.is_whitespace()) {
            // What follows on its line is words again.
            *letters = ahead;
            let bare = |line: &String| line.strip_prefix(&indent).unwrap_or(line).to_owned();
            // The first is what follows the marker on its own line.
            return Ok(lines.iter().skip(1).map(bare).collect::<Vec<_>>().join("\n"));
        }
        lines.push(std::iter::from_fn(|| letters.next_if(|letter| *letter != '\n')).collect());
        letters.next();
    }
    Err(format!("<<{marker} has no end"))
}

/// Stands before the name of a variable that is not set, in its place: what comes after it must not move up.
pub(super) const UNSET: char = '\u{1}';

/// Puts variables where the file names them: `{$NAME}`, `{$NAME:default}`, `{env.NAME}`.
fn substitute(text: &str, variables: &BTreeMap<String, String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let named = from.strip_prefix("{$").or_else(|| from.strip_prefix("{env."));
        match named.and_then(|named| named.split_once('}')) {
            Some((name, after)) if !name.contains(['\n', ' ', '{']) => {
                let (name, default) = match name.split_once(':') {
                    Some((name, default)) => (name, Some(default)),
                    None => (name, None),
                };
                match variables.get(name).map(String::as_str).or(default) {
                    Some(value) => out.push_str(value),
                    None => out.extend([UNSET.to_string().as_str(), name]),
                }
                rest = after;
            }
            _ => {
                out.push('{');
                rest = &from[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_blocks_and_variables() {
        let variables = BTreeMap::from([("KEY".to_owned(), "secret".to_owned())]);
        let text =
            "site, other { # why\n a {$KEY:x} {env.NONE} `q \"q` \"w \\\"w\"\n b {\n  c\n }\n}\n";
        let found = parse(text, &variables).expect("valid");
        let [site] = &found[..] else { panic!("{found:?}") };
        assert_eq!((site.name.as_str(), &site.arguments[..]), ("site,", &["other".to_owned()][..]));
        let [a, b] = &site.block[..] else { panic!("{site:?}") };
        assert_eq!(a.arguments, ["secret", "\u{1}NONE", "q \"q", "w \"w"]);
        assert_eq!(b.block[0].name, "c");
    }

    #[test]
    fn a_site_without_braces_and_a_value_of_several_lines() {
        let text = "\u{feff}hub.example\nmercure {\n  jwt <<END\n    one\n      two\n    END HS256\n a <<b c\n}";
        let found = parse(text, &BTreeMap::new()).expect("valid");
        let [site] = &found[..] else { panic!("{found:?}") };
        assert_eq!(site.name, "hub.example");
        let [jwt, a] = &site.block[0].block[..] else { panic!("{site:?}") };
        let texts = |words: [&str; 2]| words.map(str::to_owned);
        assert_eq!((&*jwt.name, &jwt.arguments[..]), ("jwt", &texts(["one\n  two", "HS256"])[..]));
        assert_eq!((&*a.name, &a.arguments[..]), ("a", &texts(["<<b", "c"])[..]));
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        for text in ["a {", "a }", "a {\n}\n}", "\"x", "a <<X\nb", &"{ ".repeat(100)] {
            assert!(parse(text, &BTreeMap::new()).is_err(), "{text}");
        }
    }
}
