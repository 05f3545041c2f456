use crate::db::sqlite::{
    self,
    types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef},
};
use crate::wire::Route;

/// Who is handing a message over right now. A holder is named after its process, so that one whose process is gone is known to be
/// dead. Columns `holder`, `instance` and `lease`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The event stream of the process `instance`.
    Stream { instance: String },
    /// A take of that process, under a name that it chose.
    Take { instance: String, lease: String },
}

/// Which kind of holder has a message: the column `holder`, 0 for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream = 1,
    Take = 2,
}

/// How far a message has got by routes that prove nothing: the column `again`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Not at all.
    Fresh = 0,
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
    /// The kind of holder that an acknowledgement for `route` speaks of. One that is said again after a crash must not end the
    /// lease of another route that has the message by now.
    pub fn of(route: Route) -> Self {
        match route {
            Route::Channel => Self::Stream,
            _ => Self::Take,
        }
    }
}

impl ToSql for Kind {
    fn to_sql(&self) -> sqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl ToSql for Shown {
    fn to_sql(&self) -> sqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for Shown {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value.as_i64()? {
            0 => Self::Fresh,
            1 => Self::Pushed,
            _ => Self::Announced,
        })
    }
}
