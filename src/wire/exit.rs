//! The exit codes of `claude-peersd`: a contract with scripts and service managers.

/// How the broker's program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BrokerExit {
    Stopped = 0,
    Failure = 1,
    InvalidSetting = 2,
    InUse = 3,
    NewerDatabase = 4,
}

impl BrokerExit {
    pub const ALL: [Self; 5] = [Self::Stopped, Self::Failure, Self::InvalidSetting, Self::InUse, Self::NewerDatabase];

    pub fn of(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| (*exit as u8).to_string() == code)
    }

    /// Its meaning, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Stopped => "stopped as asked",
            Self::Failure => "failure",
            Self::InvalidSetting => "a setting or argument cannot be used",
            Self::InUse => "another broker is at work on this socket or database",
            Self::NewerDatabase => "the database was written by a newer version",
        }
    }
}

impl From<BrokerExit> for std::process::ExitCode {
    fn from(exit: BrokerExit) -> Self {
        Self::from(exit as u8)
    }
}
