//! `docs/reference/configuration.md` is written from the table of settings; this fails when it is
//! stale. `make docs` writes it.

use std::fmt::Write as _;
use std::path::Path;

use mercure_hub::config::SETTINGS;

fn page() -> String {
    let mut page = String::from(
        "# Configuration of the hub\n\n\
         Written from the hub's own table of settings by `make docs`. Lists (marked with …) are \
         arrays in\nthe file, and separated by spaces or commas in the environment and in flags.\n\n\
         Those marked with ↻ are taken by a running hub (SIGHUP).\n\n\
         | File | Environment | Flag | Value | Default | Meaning |\n|---|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let value = setting.value.replace("...", " …").replace('|', "\\|");
        writeln!(
            page,
            "| `{}`{} | `{}` | `--{}` | {value} | {default} | {} |",
            setting.name,
            if setting.is_live { " ↻" } else { "" },
            setting.variable(),
            setting.flag(),
            setting.help,
        )
        .expect("writing to a String cannot fail");
    }
    page
}

#[test]
fn the_configuration_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    if std::env::vars().any(|(name, _)| name == "MERCURE_WRITE_DOCS") {
        std::fs::write(&path, page()).expect("write");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, page(), "run `make docs`");
}
