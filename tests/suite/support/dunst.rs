//! Dunst, a program that shows notifications, on a display of its own that nobody sees.

use super::{
    bus::{Bus, Client},
    eventually, folder, installed,
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
const CONTROL: &str = "org.dunstproject.cmd0";

/// Dunst and its display.
pub struct Dunst {
    display: Child,
    dunst: Child,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Dunst {
    /// Starts them on this bus. Dunst reads markup in texts as `markup` says: `full`, `strip` or `no`. None where they are not
    /// installed.
    pub fn start(bus: &Bus, markup: &str) -> Option<Self> {
        if !installed("Xvfb") || !installed("dunst") {
            return None;
        }
        let folder = folder();
        let mut xvfb = Command::new("Xvfb");
        xvfb.args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]);
        let mut display = xvfb.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut number = String::new();
        // It prints the number of its display once it is ready.
        BufReader::new(display.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let config = folder.path().join("dunstrc");
        let ever = ["low", "normal", "critical"].map(|urgency| format!("[urgency_{urgency}]\ntimeout = 0\n"));
        fs::write(&config, format!("[global]\nmarkup = {markup}\n{}", ever.concat())).unwrap();
        let mut dunst = Command::new("dunst");
        dunst.arg("-config").arg(config).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", folder.path());
        dunst.env("DISPLAY", format!(":{}", number.trim())).env("DBUS_SESSION_BUS_ADDRESS", bus.address());
        let dunst = dunst.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let client = bus.client();
        eventually("Dunst is on the bus", || client.owns(NAME).then_some(()));
        Some(Self { display, dunst, client, _folder: folder })
    }

    /// How many notifications it shows.
    pub fn displayed(&self) -> u64 {
        let length = (CONTROL, "displayedLength");
        self.client.call_of(NAME, PATH, "org.freedesktop.DBus.Properties", "Get", &length).unwrap()[0].as_u64().unwrap()
    }

    /// The notifications that it has shown and shows no more: the newest first, each with `summary`, `body`, and `message`, the
    /// markup that it has drawn.
    pub fn history(&self) -> Vec<Value> {
        self.client.call_of(NAME, PATH, CONTROL, "NotificationListHistory", &()).unwrap()[0].as_array().unwrap().clone()
    }

    /// Does what a click on the newest notification does (`dunstctl action`).
    pub fn action(&self) {
        self.client.call_of(NAME, PATH, CONTROL, "NotificationAction", &(0_u32,)).unwrap();
    }
}

impl Drop for Dunst {
    fn drop(&mut self) {
        for child in [&mut self.dunst, &mut self.display] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
