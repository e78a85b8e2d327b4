//! Where a service listens, from the kernel's tables: for saying so when that is somewhere else
//! than expected.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::ledger::Mark;

/// The state of a socket that listens, in the kernel's tables.
const LISTENS: &str = "0A";
/// Where a container engine answers questions for names, within its containers.
const ENGINES_NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// The addresses on which somebody listens in the container that this process belongs to. Nothing,
/// unless the process is the container's: the engine may count its processes elsewhere.
pub(super) fn in_container(pid: i64, container: &str) -> Vec<SocketAddr> {
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if !group.contains(container) {
        return Vec::new();
    }
    let found = listening(Path::new(&format!("/proc/{pid}/net")));
    let theirs = found.into_iter().map(|(address, _)| address);
    theirs
        .filter(|address| address.ip() != ENGINES_NAMES)
        .collect()
}

/// The addresses on which the processes of a group listen.
pub(super) fn in_group(group: i32) -> Vec<SocketAddr> {
    let own: BTreeSet<u64> = members(group).flat_map(sockets).collect();
    let found = listening(Path::new("/proc/self/net"));
    let own = found.into_iter().filter(|(_, socket)| own.contains(socket));
    own.map(|(address, _)| address).collect()
}

fn members(group: i32) -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(move |pid| Mark::of(*pid).is_some_and(|mark| mark.group == group))
}

/// The numbers of the sockets that a process holds.
fn sockets(pid: u32) -> Vec<u64> {
    let held = fs::read_dir(format!("/proc/{pid}/fd"));
    let links = held.into_iter().flatten().flatten();
    links
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            let number = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            number.parse().ok()
        })
        .collect()
}

/// The sockets that listen, as the tables of one network tell: address and number.
fn listening(tables: &Path) -> Vec<(SocketAddr, u64)> {
    let read = |name: &str| fs::read_to_string(tables.join(name)).unwrap_or_default();
    let rows = [read("tcp"), read("tcp6")].concat();
    rows.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTENS {
        return None;
    }
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let address = SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?);
    Some((address, fields.get(9)?.parse().ok()?))
}

/// The kernel writes addresses as words of 32 bits, each as the machine would write a number.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at..at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if text.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let mut bytes = [0; 16];
    for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(at * 8)?);
    }
    Some(Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_listens_is_found_by_its_group() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpListener::bind("[::1]:0");
        let group = Mark::of(std::process::id()).unwrap().group;
        let found = in_group(group);
        for listener in [Ok(here), there].into_iter().flatten() {
            let address = listener.local_addr().unwrap();
            assert!(found.contains(&address), "{address} in {found:?}");
        }
        assert_eq!(in_group(-1), []);
    }

    #[test]
    fn a_process_that_is_not_the_containers_says_nothing() {
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pid = i64::from(std::process::id());
        assert_eq!(in_container(pid, &"f".repeat(64)), []);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_are_read_as_the_kernel_writes_them() {
        let listens = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 \
                       00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0";
        let expected = ("127.0.0.1:8080".parse().unwrap(), 4711);
        assert_eq!(row(listens), Some(expected));
        assert_eq!(row(&listens.replace(" 0A ", " 01 ")), None);
        assert_eq!(row("  sl  local_address rem_address   st"), None);
        let six = listens.replace("0100007F", "00000000000000000000000001000000");
        assert_eq!(row(&six).unwrap().0.to_string(), "[::1]:8080");
    }
}
