//! Which sockets a recording is about, as text: a replay leaves out what is in it of others, since not
//! all of that is.

use crate::filter::{Family, Filter, Net, Ports};

/// The part of a filter that needs nothing but the ends of a connection and its namespace: a line for
/// each criterion, its name and its values as on the command line.
pub(super) fn to_text(filter: &Filter) -> String {
    let list = |items: Vec<String>| items.join(",");
    let nets = |nets: &[Net]| list(nets.iter().map(Net::to_string).collect());
    let family = match filter.family {
        Some(Family::V4) => "4",
        Some(Family::V6) => "6",
        None => "",
    };
    let criteria = [
        ("local_port", filter.local_ports.to_string()),
        ("remote_port", filter.remote_ports.to_string()),
        ("port", filter.any_ports.to_string()),
        ("laddr", nets(&filter.local_nets)),
        ("raddr", nets(&filter.remote_nets)),
        ("family", family.to_owned()),
        (
            "netns",
            list(filter.netns.iter().map(u32::to_string).collect()),
        ),
    ];
    let given = criteria.iter().filter(|(_, values)| !values.is_empty());
    given
        .map(|(name, values)| format!("{name} {values}\n"))
        .collect()
}

/// Reads it back. What is not known, or cannot be read, narrows nothing.
pub(super) fn of_text(text: &str) -> Filter {
    let mut filter = Filter::default();
    let ports = |values: &str| values.parse::<Ports>().unwrap_or_default();
    let nets = |values: &str| {
        values
            .split(',')
            .filter_map(|net| net.parse().ok())
            .collect()
    };
    for (name, values) in text.lines().filter_map(|line| line.split_once(' ')) {
        match name {
            "local_port" => filter.local_ports = ports(values),
            "remote_port" => filter.remote_ports = ports(values),
            "port" => filter.any_ports = ports(values),
            "laddr" => filter.local_nets = nets(values),
            "raddr" => filter.remote_nets = nets(values),
            "family" if values == "4" => filter.family = Some(Family::V4),
            "family" if values == "6" => filter.family = Some(Family::V6),
            "netns" => {
                let inodes = values.split(',').filter_map(|inode| inode.parse().ok());
                filter.netns = inodes.collect();
            }
            _ => {}
        }
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_back() {
        let filter = Filter {
            local_ports: "80,8000-8010".parse().unwrap(),
            remote_ports: "443".parse().unwrap(),
            any_ports: "1-65535".parse().unwrap(),
            local_nets: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
            remote_nets: vec!["2001:db8::/32".parse().unwrap()],
            family: Some(Family::V6),
            netns: vec![4_026_531_840, 7],
            ..Filter::default()
        };
        assert_eq!(of_text(&to_text(&filter)), filter);
        let v4 = Filter {
            family: Some(Family::V4),
            ..Filter::default()
        };
        assert_eq!(of_text(&to_text(&v4)), v4);
        assert_eq!(to_text(&Filter::default()), "");
        let odd = "later 1\nport x\nladdr 10.0.0.1,y\nfamily 5\n\nnetns 1,z";
        let read = of_text(odd);
        assert_eq!(to_text(&read), "laddr 10.0.0.1/32\nnetns 1\n");
    }
}
