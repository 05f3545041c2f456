//! The sockets of the installed units, and a broker that stands in their way.

use super::step::{Ended, Problem, Step};
use crate::{
    cli::{
        call::Call,
        manager::{SERVICE, SETUP_SERVICE, SOCKET, SOCKETS, Systemd, TCP_SOCKET, Unit},
        stop,
    },
    client::Client,
    paths::DEFAULT_PORT,
    wire::{BrokerStatus, VERSION},
};
use std::{net::TcpListener, path::PathBuf};

const NAME: &str = "sockets";
const TCP: &str = "tcp_port";
const BROKER: &str = "broker";
const MASK: &str = "mask";

/// What systemd knows of our units, before anything is changed.
pub struct Sockets {
    systemd: Systemd,
    unix: Unit,
    tcp: Unit,
    service: Unit,
    login: Unit,
    /// The broker that answers already, however it was started.
    broker: Option<BrokerStatus>,
}

/// The socket that the units make.
pub fn socket(systemd: &Systemd) -> PathBuf {
    systemd.runtime.join("claude-peers/broker.sock")
}

impl Sockets {
    /// Asks systemd, and the broker if it runs; starts nothing.
    pub async fn look(systemd: &Systemd) -> Result<Self, Problem> {
        let [unix, tcp, service, login] = systemd.units([SOCKET, TCP_SOCKET, SERVICE, SETUP_SERVICE]).await?;
        // A connection to systemd's socket would start the broker; where systemd has none, it starts nothing.
        let broker = if service.is_active() || !unix.is_active() {
            Client::new(socket(systemd), "claude-peers").get("/v1/status", None).await.ok()
        } else {
            None
        };
        Ok(Self { systemd: systemd.clone(), unix, tcp, service, login, broker })
    }

    /// The steps that have both sockets listen. `package`: the units are a package's; `changed`: they are about to change;
    /// `port`: the port of the TCP socket is about to become this one.
    pub fn open(self, package: bool, changed: bool, port: Option<u16>) -> Vec<Step> {
        let mut steps: Vec<_> = self.broker_by_hand().into_iter().collect();
        steps.push(self.enable(package));
        steps.push(self.open_tcp(port));
        steps.extend(self.renew(changed && port.is_none()));
        steps
    }

    /// A broker that nobody supervises would keep its database from the service's.
    fn broker_by_hand(&self) -> Option<Step> {
        let broker = self.broker.as_ref().filter(|_| !self.service.is_active() && !self.unix.is_active())?;
        let client = Client::new(socket(&self.systemd), "claude-peers");
        Some(Step::to_do(BROKER, format!("stop the one that was started by hand (process {})", broker.pid), async move {
            match stop::stop(&client).await {
                Ok(_) => Ok(Ended::Well("the service takes its place".to_owned())),
                Err(failure) => Err(Problem::new(failure.report().message, failure.report().help.unwrap_or_default())),
            }
        }))
    }

    fn enable(&self, package: bool) -> Step {
        let (systemd, units) = (&self.systemd, [&self.unix, &self.tcp, &self.service, &self.login]);
        let picked = |wanted: fn(&Unit) -> bool| {
            units.into_iter().filter(|unit| wanted(unit)).map(|unit| unit.name.as_str()).collect::<Vec<_>>()
        };
        let masked = picked(Unit::is_masked);
        // The TCP socket has its own step: where the port is in other hands, it has failed and may stay so.
        let failed: Vec<_> =
            [&self.unix, &self.service].into_iter().filter(|unit| unit.is_failed()).map(|unit| unit.name.as_str()).collect();
        let mut calls = Vec::new();
        if !masked.is_empty() {
            calls.push(systemd.unmask(masked));
        }
        if !failed.is_empty() {
            calls.push(systemd.reset_failed(failed));
        }
        // A package has enabled its units for all users, which shows again once they are not masked any more.
        let enabled = |unit: &Unit| unit.is_enabled() || (package && unit.is_masked());
        if !enabled(&self.unix) || !enabled(&self.tcp) {
            calls.push(systemd.enable(SOCKETS));
        }
        if !self.unix.is_active() {
            calls.push(systemd.start([SOCKET]));
        }
        let what = format!("have {SOCKET} and {TCP_SOCKET} start by themselves");
        if calls.is_empty() { Step::already(NAME, what) } else { Step::to_do(NAME, what, run(calls)) }
    }

    fn open_tcp(&self, port: Option<u16>) -> Step {
        let systemd = &self.systemd;
        let wanted = port.or_else(|| self.tcp.listen.as_ref()?.rsplit(':').next()?.parse().ok()).unwrap_or(DEFAULT_PORT);
        let what = format!("listen on 127.0.0.1:{wanted}");
        let in_use = self.tcp.is_active();
        if in_use && port.is_none() {
            return Step::already(TCP, what);
        }
        let listeners = self.broker.iter().flat_map(|broker| &broker.listeners);
        if port.is_none()
            && listeners.clone().any(|l| l.kind == "tcp" && l.listening && l.address.ends_with(&format!(":{wanted}")))
            && self.service.is_active()
        {
            return Step::already(TCP, format!("{what} (the broker does it itself)"));
        }
        // A broker started by hand is about to give it back.
        let by_hand = self.broker.is_some() && !self.service.is_active();
        if !by_hand && TcpListener::bind(("127.0.0.1", wanted)).is_err() {
            let said = listeners.filter(|l| l.kind == "tcp").find_map(|l| l.problem.clone());
            let held = said.map(|said| format!(": {said}")).unwrap_or_default();
            return Step::left_out(
                TCP,
                format!("{what}{held}"),
                format!(
                    "port {wanted} is in other hands, and only sessions of the reference system need it; `--port N` takes another"
                ),
            );
        }
        let mut calls = Vec::new();
        if self.service.is_active() {
            // systemd opens no socket for a service that runs. The next connection starts it again, nothing is lost.
            calls.push(systemd.stop([SERVICE]));
        }
        if self.tcp.is_failed() {
            calls.push(systemd.reset_failed([TCP_SOCKET]));
        }
        calls.push(if in_use { systemd.restart([TCP_SOCKET]) } else { systemd.start([TCP_SOCKET]) });
        Step::to_do(TCP, what, async move {
            match run(calls).await {
                Ok(well) => Ok(well),
                Err(problem) => Ok(Ended::LeftOut(Problem::new(
                    problem.what,
                    "sessions use the Unix socket; only those of the reference system need the port: `--port N` takes another",
                ))),
            }
        })
    }

    /// A broker of another version, or of units that change, is replaced by the installed one.
    fn renew(&self, changed: bool) -> Option<Step> {
        let broker = self.broker.as_ref().filter(|_| self.service.is_active())?;
        let what = match broker.version.as_str() {
            VERSION if !changed => return None,
            VERSION => "restart it with the new units".to_owned(),
            other => format!("restart it as version {VERSION} (it is {other})"),
        };
        Some(Step::to_do(BROKER, what, run(vec![self.systemd.try_restart([SERVICE])])))
    }

    /// The step that closes the sockets and ends the service.
    pub fn close(&self) -> Step {
        let (systemd, names) = (&self.systemd, [SOCKET, TCP_SOCKET, SERVICE]);
        let units = [&self.unix, &self.tcp, &self.service];
        let mut calls = Vec::new();
        if self.unix.is_enabled() || self.tcp.is_enabled() {
            calls.push(systemd.disable(SOCKETS));
        }
        if units.iter().any(|unit| !matches!(unit.active.as_str(), "inactive" | "failed" | "")) {
            calls.push(systemd.stop(names));
        }
        let failed: Vec<_> = units.iter().filter(|unit| unit.is_failed()).map(|unit| unit.name.as_str()).collect();
        if !failed.is_empty() {
            calls.push(systemd.reset_failed(failed));
        }
        let what = "stop the sockets and the broker, and have them not start by themselves any more";
        if calls.is_empty() { Step::already(NAME, what) } else { Step::to_do(NAME, what, run(calls)) }
    }

    /// The step that keeps the units of a package, which stay and which the package has enabled, from starting again.
    pub fn forbid(&self) -> Step {
        let units = [&self.unix, &self.tcp, &self.service, &self.login];
        let names: Vec<_> = units.into_iter().filter(|unit| !unit.is_masked()).map(|unit| unit.name.as_str()).collect();
        let what = "mask the units of the package for this user; `claude-peers setup` unmasks them";
        if names.is_empty() { Step::already(MASK, what) } else { Step::to_do(MASK, what, run(vec![self.systemd.mask(names)])) }
    }
}

/// Makes the calls, one after the other, up to the first that fails.
async fn run(calls: Vec<Call>) -> Result<Ended, Problem> {
    for call in calls {
        call.run().await?;
    }
    Ok(Ended::Well(String::new()))
}
