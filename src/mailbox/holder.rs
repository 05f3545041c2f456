use crate::{
    db::sqlite::{self, types::ToSqlOutput},
    wire::Route,
};

/// The one who hands a message over right now: the columns `holder`, `instance` and `lease`. It is named after its process, so
/// that its leases can end with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The event stream of the process `instance`.
    Stream { instance: String },
    /// A take of that process, under a name that it chose.
    Take { instance: String, lease: String },
}

/// The kind of holder that has a message: the column `holder`, 0 if it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream = 1,
    Take = 2,
}

/// How far a message has got by routes that prove nothing: the column `again`, 0 for a fresh one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Pushed into an inbox or channel.
    Pushed = 1,
    /// Its beginning only.
    Announced = 2,
}

impl Holder {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Stream { .. } => Kind::Stream,
            Self::Take { .. } => Kind::Take,
        }
    }

    /// Its process.
    pub(super) fn instance(&self) -> &str {
        match self {
            Self::Stream { instance } | Self::Take { instance, .. } => instance,
        }
    }

    pub(super) fn lease(&self) -> Option<&str> {
        match self {
            Self::Stream { .. } => None,
            Self::Take { lease, .. } => Some(lease),
        }
    }
}

impl Kind {
    /// The kind of holder that acknowledges by `route`. An acknowledgement that is repeated after a crash must not end the lease
    /// of another route that has the message by now.
    pub fn of(route: Route) -> Self {
        match route {
            Route::Channel => Self::Stream,
            _ => Self::Take,
        }
    }
}

impl sqlite::ToSql for Kind {
    fn to_sql(&self) -> sqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl sqlite::ToSql for Shown {
    fn to_sql(&self) -> sqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}
