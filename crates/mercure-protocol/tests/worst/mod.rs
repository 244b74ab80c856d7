//! Patterns that are made to be slow.

/// Shapes of patterns that bring backtracking engines to their knees, as a beginning, a part to
/// repeat, and an end.
pub(crate) const SHAPES: [(&str, &str, &str); 12] = [
    ("/((?:(?:a*)*)*", "(?:[ab]*)*", "[bc])"),
    ("/((?:a|aa|aaa)+", "(?:a|aa)+", "[bc])"),
    ("/", "*a", "*"),
    ("/", ":n_a", "b"),
    ("/", "{a}?", ":rest"),
    ("/([ab]{1,9}", "[ab]{1,9}", ")"),
    ("/", "{x}a", "{y}"),
    ("/", "{+x}", "b"),
    ("", "{/list*}", "{?q*}"),
    ("/([ab]*a", "[ab]{20}", ")"),
    ("/{+x}a", "{y:20}", "z"),
    ("/{x}a", "{y:10}", ""),
];

/// Topics of 4 KiB that nearly match; the last one has no period that a cache could learn.
pub(crate) fn topics() -> [String; 4] {
    let fill = |part: &str| {
        let mut topic = "https://hub.example/".to_owned();
        topic.push_str(&part.repeat((4096 - topic.len()) / part.len()));
        topic
    };
    let mut state = 1_u32;
    let random: String = (0..4000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 31 == 0 { 'a' } else { 'b' }
        })
        .collect();
    [fill("a"), fill("ab"), fill("a/"), fill(&random)]
}

/// The pattern of a shape with so many parts. Names are numbered, as no two may be the same.
pub(crate) fn pattern(shape: (&str, &str, &str), parts: usize) -> String {
    let (start, part, end) = shape;
    let numbered = |n: usize| part.replace(":n_", &format!(":n{n}_"));
    format!("https://hub.example{start}{}{end}", (0..parts).map(numbered).collect::<String>())
}
