//! nginx as people put it in front of a hub.

use std::path::Path;
use std::process::Command;

use mercure_transports::testing::{Process, free_port};

use super::node::Node;

/// Passes everything on to a hub, with lines of its own for that place; its port.
pub fn nginx(folder: &Path, hub: &Node, location: &str) -> (Process, u16) {
    let (port, user) =
        (free_port(), if rustix::process::geteuid().is_root() { "user root;" } else { "" });
    let shown = folder.display();
    let text = format!(
        "{user} daemon off; pid {shown}/pid; error_log {shown}/error.log;\nevents {{}}\nhttp {{ access_log off;\n\
         client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy; fastcgi_temp_path {shown}/f;\n\
         uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s; keepalive_requests 100000;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; proxy_http_version 1.1;\n\
         {location} }} }} }}\n",
        hub.address()
    );
    let path = folder.join("nginx.conf");
    std::fs::write(&path, text).expect("write");
    let mut command = Command::new("nginx");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-c").arg(&path).arg("-p").arg(folder);
    let mut process =
        Process::start(&mut command, &folder.join("nginx.log"), "TERM").expect("nginx");
    process.wait_for(port);
    (process, port)
}
