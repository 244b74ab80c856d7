//! Patterns that are made to be slow.

/// Shapes of patterns that bring backtracking engines to their knees, as a beginning, a part to
/// repeat, and an end.
pub const SHAPES: [(&str, &str, &str); 9] = [
    ("/((?:(?:a*)*)*", "(?:[ab]*)*", "[bc])"),
    ("/((?:a|aa|aaa)+", "(?:a|aa)+", "[bc])"),
    ("/", "*a", "*"),
    ("/", ":n_a", "b"),
    ("/", "{a}?", ":rest"),
    ("/([ab]{1,9}", "[ab]{1,9}", ")"),
    ("/", "{x}a", "{y}"),
    ("/", "{+x}", "b"),
    ("", "{/list*}", "{?q*}"),
];

/// Topics of 4 KiB that nearly match.
pub fn topics() -> [String; 3] {
    let fill = |part: &str| {
        let mut topic = "https://hub.example/".to_owned();
        topic.push_str(&part.repeat((4096 - topic.len()) / part.len()));
        topic
    };
    [fill("a"), fill("ab"), fill("a/")]
}

/// The pattern of a shape with so many parts. Names are numbered, as no two may be the same.
pub fn pattern(shape: (&str, &str, &str), parts: usize) -> String {
    let (start, part, end) = shape;
    let numbered = |n: usize| part.replace(":n_", &format!(":n{n}_"));
    format!("https://hub.example{start}{}{end}", (0..parts).map(numbered).collect::<String>())
}
