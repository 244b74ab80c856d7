//! Every fuzz target on its seeds and on random input: the short form of `make fuzz`.

use std::path::Path;

use mercure_fuzz::TARGETS;
use proptest::prelude::*;

#[test]
fn no_seed_breaks_a_target() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
        let seeds = std::fs::read_dir(&folder).expect("each target has seeds");
        let mut count = 0;
        for seed in seeds {
            target(&std::fs::read(seed.expect("entry").path()).expect("a seed"));
            count += 1;
        }
        assert!(count > 0, "{name} has a seed");
    }
}

proptest! {
    #[test]
    fn no_random_input_breaks_a_target(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        TARGETS.iter().for_each(|(_, target)| target(&bytes));
    }

    #[test]
    fn no_text_of_the_usual_signs_breaks_a_target(
        text in "[a-z/:{}*()?#&=%+.,;<>\\\\\u{0}\r\n 0-9é\"\\[\\]|!$'@^~_-]{0,120}",
    ) {
        TARGETS.iter().for_each(|(_, target)| target(text.as_bytes()));
    }
}
