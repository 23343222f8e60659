//! A timer that wakes the process once per period.
//!
//! The runtime's own timers hand a long sleep down from a coarse wheel to a fine one and wake up for each: three
//! times for half a minute. For a daemon that does nothing else all day that is three times too often.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

/// A periodic timer of the kernel (timerfd_create(2)).
#[derive(Debug)]
pub struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    /// A timer that ticks each `period`, the first time after one.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn new(period: Duration) -> io::Result<Self> {
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let period = Timespec::try_from(period).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let both = Itimerspec { it_interval: period, it_value: period };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &both)?;
        #[allow(deprecated, reason = "its successor is unsafe for the sake of types that do not own their descriptor")]
        let timer = AsyncFd::new(timer)?;
        Ok(Ticker(timer))
    }

    /// Waits for the next tick. Ticks that were missed are one.
    ///
    /// # Errors
    /// When the kernel's timer fails.
    pub async fn tick(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0u8; 8])?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ticks_again_and_again() {
        let ticker = Ticker::new(Duration::from_millis(5)).unwrap();
        for _ in 0..3 {
            ticker.tick().await.unwrap();
        }
        assert!(Ticker::new(Duration::MAX).is_err());
    }
}
