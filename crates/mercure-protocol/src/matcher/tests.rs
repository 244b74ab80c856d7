use proptest::prelude::*;

use super::*;

const HUB: &str = "https://hub.example.com/.well-known/mercure";

fn hub() -> HubUrl {
    HubUrl::parse(HUB).expect("hub URL")
}

fn matches(kind: MatcherType, matcher: &str, topic: &str) -> bool {
    let hub = hub();
    let matcher = Matcher::parse(kind, matcher, &hub, &Limits::default()).expect("valid matcher");
    let view = TopicView::new(topic, &hub);
    let matched = matcher.matches(&view);
    if matched {
        assert!(routes_to(&matcher, &view), "the index would miss {matcher:?} for {topic}");
    }
    matched
}

fn routes_to(matcher: &Matcher, view: &TopicView<'_>) -> bool {
    match matcher.route() {
        Route::Any => true,
        Route::Exact(text) => view.as_str() == text,
        Route::TopicPrefix(prefix) => view.as_str().starts_with(prefix),
        Route::UrlPrefix(prefix) => view.url_key().is_some_and(|key| key.starts_with(prefix)),
    }
}

#[test]
fn exact_is_bytewise_and_resolves_nothing() {
    assert!(matches(MatcherType::Exact, "/a", "/a"));
    assert!(!matches(MatcherType::Exact, "/a", "https://hub.example.com/a"));
    assert!(!matches(MatcherType::Exact, "a", "A"));
    assert!(!matches(MatcherType::Exact, "https://example.com/{id}", "https://example.com/1"));
}

#[test]
fn the_wildcard_has_its_meaning_in_every_type() {
    for kind in [MatcherType::Exact, MatcherType::UrlPattern, MatcherType::Selector] {
        assert!(matches(kind, "*", "anything, http://[ included"));
    }
}

#[test]
fn url_patterns_follow_the_standard() {
    let cases = [
        ("https://example.com/books/:id", "https://example.com/books/1", true),
        ("https://example.com/books/:id", "https://EXAMPLE.com:443/books/1", true),
        ("https://example.com/books/:id", "https://example.com/books/1/2", false),
        ("https://example.com/books/:id", "https://example.com/books/", false),
        ("https://example.com/books/:id", "http://example.com/books/1", false),
        ("https://example.com/Books/*", "https://example.com/books/1", false),
        ("https://example.com/users/42/*", "https://example.com/users/42/books/1", true),
        ("https://example.com/:a/:b", "https://example.com/x/y", true),
        ("https://example.com/:a/:b", "https://example.com/x", false),
        ("https://*.example.com/a", "https://x.example.com/a", true),
        ("https://*.example.com/a", "https://example.com/a", false),
        ("https://example.com/(\\d+)", "https://example.com/12", true),
        ("https://example.com/(\\d+)", "https://example.com/x", false),
        ("https://example.com/a{/b}?", "https://example.com/a", true),
        ("https://example.com/a{/b}?", "https://example.com/a/b", true),
        ("/books/:id", "/books/1", true),
        ("/books/:id", "https://hub.example.com/books/1", true),
        ("/books/:id", "https://example.com/books/1", false),
        ("https://example.com/a?x=*", "https://example.com/a?x=1", true),
        ("https://example.com/a?x=*", "https://example.com/a", false),
        ("https://example.com/*", "http://[", false),
        ("https://example.com/aa*aa", "https://example.com/aaa", false),
        ("urn\\:uuid\\::id", "urn:uuid:1", true),
    ];
    for (pattern, topic, expected) in cases {
        assert_eq!(matches(MatcherType::UrlPattern, pattern, topic), expected, "{pattern} {topic}");
    }
}

#[test]
fn malformed_and_oversize_patterns_are_refused() {
    let hub = hub();
    for pattern in
        ["https://example.com/(", "https://example.com/(\\w{500}{500})", "/{", "/((a)", "/(?<x"]
    {
        let parsed = Matcher::parse(MatcherType::UrlPattern, pattern, &hub, &Limits::default());
        assert!(parsed.is_err(), "{pattern}");
    }
    let long = format!("/{}", "a".repeat(4096));
    assert!(Matcher::parse(MatcherType::Exact, &long, &hub, &Limits::default()).is_err());
}

/// Expansions from the examples of RFC 6570, sections 1.2 and 3.2.
#[test]
fn templates_match_their_own_expansions() {
    let cases = [
        ("{var}", "value"),
        ("{hello}", "Hello%20World%21"),
        ("{+path}/here", "/foo/bar/here"),
        ("here?ref={+path}", "here?ref=/foo/bar"),
        ("X{#var}", "X#value"),
        ("X{#hello}", "X#Hello%20World!"),
        ("map?{x,y}", "map?1024,768"),
        ("{x,hello,y}", "1024,Hello%20World%21,768"),
        ("{+x,hello,y}", "1024,Hello%20World!,768"),
        ("{#path,x}/here", "#/foo/bar,1024/here"),
        ("X{.var}", "X.value"),
        ("X{.x,y}", "X.1024.768"),
        ("{/var}", "/value"),
        ("{/var,x}/here", "/value/1024/here"),
        ("{;x,y}", ";x=1024;y=768"),
        ("{;x,y,empty}", ";x=1024;y=768;empty"),
        ("{?x,y}", "?x=1024&y=768"),
        ("{?x,y,empty}", "?x=1024&y=768&empty="),
        ("?fixed=yes{&x}", "?fixed=yes&x=1024"),
        ("{&x,y,empty}", "&x=1024&y=768&empty="),
        ("{var:3}", "val"),
        ("{var:30}", "value"),
        ("{list}", "red,green,blue"),
        ("{list*}", "red,green,blue"),
        ("{keys}", "semi,%3B,dot,.,comma,%2C"),
        ("{keys*}", "semi=%3B,dot=.,comma=%2C"),
        ("{+path:6}/here", "/foo/b/here"),
        ("{+keys*}", "semi=;,dot=.,comma=,"),
        ("X{.list*}", "X.red.green.blue"),
        ("X{.keys*}", "X.semi=%3B.dot=..comma=%2C"),
        ("{/var:1,var}", "/v/value"),
        ("{/list*,path:4}", "/red/green/blue/%2Ffoo"),
        ("{/keys*}", "/semi=%3B/dot=./comma=%2C"),
        ("{;hello:5}", ";hello=Hello"),
        ("{;list*}", ";list=red;list=green;list=blue"),
        ("{;keys*}", ";semi=%3B;dot=.;comma=%2C"),
        ("{?var:3}", "?var=val"),
        ("{?list*}", "?list=red&list=green&list=blue"),
        ("{?keys*}", "?semi=%3B&dot=.&comma=%2C"),
        ("{&list*}", "&list=red&list=green&list=blue"),
        ("{?undef,y}", "?y=768"),
        ("{/undef}", ""),
        ("https://example.com/books/{id}", "https://example.com/books/1"),
        ("https://example.com/books/{id}", "https://example.com/books/été"),
        (
            "https://example.com/users/foo/{?topic}",
            "https://example.com/users/foo/?topic=https%3A%2F%2Fexample.com%2Fbooks%2F1",
        ),
    ];
    for (template, topic) in cases {
        assert!(matches(MatcherType::Selector, template, topic), "{template} {topic}");
    }
}

#[test]
fn templates_do_not_match_what_they_cannot_expand_to() {
    let cases = [
        ("https://example.com/books/{id}", "https://example.com/books/1/2"),
        ("https://example.com/books/{id}", "https://example.com/books/1?x"),
        ("https://example.com/books/{id}", "http://example.com/books/1"),
        ("{var:3}", "value"),
        ("{?x}", "?y=1"),
        ("{;x}", ";y=1"),
        ("a{.b}c", "axc"),
        ("{x}", "a%zz"),
    ];
    for (template, topic) in cases {
        assert!(!matches(MatcherType::Selector, template, topic), "{template} {topic}");
    }
}

#[test]
fn a_selector_always_matches_itself_and_invalid_templates_are_plain_text() {
    for text in
        ["https://example.com/{id}", "{", "a}b", "{=x}", "{}", "{a b}", "{x:0}", "{x:99999}"]
    {
        assert!(matches(MatcherType::Selector, text, text), "{text}");
    }
    assert!(!matches(MatcherType::Selector, "{=x}", "1"));
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".{0,60}", topic in ".{0,60}") {
        let hub = hub();
        let view = TopicView::new(&topic, &hub);
        for kind in [MatcherType::Exact, MatcherType::UrlPattern, MatcherType::Selector] {
            if let Ok(matcher) = Matcher::parse(kind, &text, &hub, &Limits::default()) {
                let matched = matcher.matches(&view);
                prop_assert!(!matched || routes_to(&matcher, &view));
            }
        }
    }

    /// Our compact evaluation agrees with the crate that parsed the pattern.
    #[test]
    fn url_patterns_agree_with_the_reference(
        pattern in "(https://(example\\.com|\\*\\.com|:h))?(/(a|b|:x|\\*|:y\\?|\\{c\\}\\?|\\([ab]+\\))){1,3}(\\?q=(1|\\*|:q))?",
        topic in "(https://(example\\.com|b\\.com))?(/(a|b|c|ab)){1,3}(\\?q=[12])?(#f)?",
    ) {
        let base = url::Url::parse(HUB).expect("base");
        let absolute = ::urlpattern::UrlPatternInit::parse_constructor_string::<regex::Regex>(&pattern, None)
            .or_else(|_| ::urlpattern::UrlPatternInit::parse_constructor_string::<regex::Regex>(&pattern, Some(base.clone())));
        let reference = absolute.ok().and_then(|init| {
            ::urlpattern::UrlPattern::<regex::Regex>::parse(init, ::urlpattern::UrlPatternOptions::default()).ok()
        });
        let ours = Matcher::parse(MatcherType::UrlPattern, &pattern, &hub(), &Limits::default()).ok();
        prop_assert_eq!(reference.is_some(), ours.is_some());
        if let Some(reference) = reference {
            let url = base.join(&topic).expect("topic");
            let expected = reference.test(::urlpattern::UrlPatternMatchInput::Url(url)).expect("test");
            prop_assert_eq!(matches(MatcherType::UrlPattern, &pattern, &topic), expected);
        }
    }
}
