use crate::{
    db::sqlite::{self, types::ToSqlOutput},
    wire::Route,
};

/// The holder of a leased message: the columns `holder`, `instance` and `lease`. It contains its process, so that its leases can
/// end with that process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The event stream of the process `instance`.
    Stream { instance: String },
    /// A take of the process `instance`, under a lease name that the process chose.
    Take { instance: String, lease: String },
}

/// The kind of a message's holder: the column `holder`, which is 0 without a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream = 1,
    Take = 2,
}

/// How far routes without proof have shown a message: the column `again`, which is 0 for a fresh message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Pushed into an inbox or channel.
    Pushed = 1,
    /// Only its beginning was shown.
    Announced = 2,
}

impl Holder {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Stream { .. } => Kind::Stream,
            Self::Take { .. } => Kind::Take,
        }
    }

    /// The process of the holder.
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
    /// The kind of holder that acknowledges by `route`. After a crash an acknowledgement may be repeated. By then another route
    /// may have leased the message, and that lease must not end.
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
