//! Waiting for a count to be reached.

use std::time::Duration;

use anyhow::bail;

/// How long nothing may happen while something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(200);

/// Returns once so many have arrived; more, or none for a while, is an error.
pub(crate) fn reach(goal: u64, mut now: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<()> {
    let (mut last, mut still) = (0, Duration::ZERO);
    loop {
        let now = now()?;
        if now > goal {
            bail!("{now} arrived, which is more than {goal}");
        }
        if now == goal {
            return Ok(());
        }
        still = if now == last { still + PAUSE } else { Duration::ZERO };
        last = now;
        if still > PATIENCE {
            bail!("{now} of {goal}, and nothing more comes");
        }
        std::thread::sleep(PAUSE);
    }
}
