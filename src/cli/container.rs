//! `container`: lets the sessions in a container talk to those outside.

use crate::{
    client::Client,
    console::{Column, Failure, Field, Look, Out, Tone},
    wire::{Container, ContainerName, Containers, Done},
};
use serde::Serialize;
use serde_json::json;

/// Where the folder is mounted inside, and the variable that names the socket there.
const INSIDE: &str = "/run/claude-peers";
const VARIABLE: &str = "CLAUDE_PEERS_SOCKET";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command opens a socket and prints how to mount its folder into the container. Run it again before each start of the container. Install \
claude-peers-mcp inside, register it with the agent there, and do not run `claude-peers setup` inside: \
https://github.com/claude-peers/claude-peers/blob/main/docs/manual.md#containers

Examples:
  claude-peers container shop-api
  claude-peers container shop-api --close
  claude-peers container --list")]
pub struct Args {
    /// A name of your choice: 1 to 32 letters, digits, `-` or `_`, the first a letter or a digit. Lists show it with each session in the
    /// container
    #[arg(required_unless_present = "list")]
    pub name: Option<ContainerName>,
    /// Close the container's socket and cut its sessions off
    #[arg(long)]
    pub close: bool,
    /// List the containers whose sockets are open
    #[arg(long, conflicts_with_all = ["name", "close"])]
    pub list: bool,
}

/// An open container, and what starts it with its socket.
#[derive(Debug, Serialize)]
struct Opened {
    #[serde(flatten)]
    container: Container,
    /// The value of `--mount`, and of `mounts` in devcontainer.json.
    mount: String,
    /// The value of `--env`.
    env: String,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let Some(name) = args.name else {
        let open: Containers = broker.get("/v1/containers", None).await?;
        return out.answer(&open, |open, look| match open.containers.is_empty() && look.terminal {
            true => "No containers. `claude-peers container NAME` opens a socket for one.\n".to_owned(),
            false => table(&open.containers, look),
        });
    };
    let path = |verb: &str| format!("/v1/containers/{name}/{verb}");
    if args.close {
        let closed: Done = broker.post(&path("close"), None, &json!({})).await?;
        return out.answer(&closed, |_, _| format!("The socket of the container {name} is closed.\n"));
    }
    let container: Container = broker.post(&path("open"), None, &json!({})).await?;
    let mount = format!("type=bind,src={},dst={INSIDE},readonly", container.folder);
    let opened = Opened { container, mount, env: format!("{VARIABLE}={INSIDE}/broker.sock") };
    out.answer(&opened, |opened, _| explained(opened))
}

fn explained(Opened { container, mount, env }: &Opened) -> String {
    let Container { name, folder, .. } = container;
    let (variable, socket) = env.split_once('=').unwrap_or_default();
    let quoted = |text: &str| json!(text).to_string();
    format!(
        "The socket of the container {name} is {folder}/broker.sock\n\n\
         For docker run and podman run:\n  --mount {mount} --env {env}\n\n\
         For devcontainer.json:\n  \
         \"initializeCommand\": {},\n  \"mounts\": [{}],\n  \"containerEnv\": {{{}: {}}}\n",
        quoted(&format!("claude-peers container {name}")),
        quoted(mount),
        quoted(variable),
        quoted(socket),
    )
}

fn table(containers: &[Container], look: Look) -> String {
    look.table(
        containers,
        &[
            (Column::whole("NAME"), &|container| Field::new(container.name.as_str(), Tone::Strong)),
            (Column::whole("SESSIONS"), &|container| container.peers.to_string().into()),
            (Column::whole("FOLDER"), &|container| container.folder.as_str().into()),
        ],
    )
}
