//! Container ids, as the runtimes write them into cgroup paths.

/// The id of the container whose cgroup this is, innermost first: of docker, containerd, cri-o,
/// podman and whatever else Kubernetes runs, 64 hex digits; of systemd-nspawn, libvirt and LXC,
/// a name. `None` for a cgroup outside any container.
pub(crate) fn container(cgroup: &str) -> Option<&str> {
    let parts = || cgroup.split('/').rev();
    parts().find_map(hex_id).or_else(|| named(cgroup))
}

/// Prefixes that runtimes put before the id in the name of a systemd scope.
const PREFIXES: [&str; 6] = [
    "docker-",
    "cri-containerd-",
    "crio-",
    "libpod-",
    "containerd-",
    "nerdctl-",
];

/// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID`, `libpod-ID.scope`, `ID`; containerd
/// in systemd's way: `kubepods-…-podUID.slice:cri-containerd:ID`.
fn hex_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let part = part.rsplit(':').next().unwrap_or(part);
    let id = PREFIXES
        .iter()
        .find_map(|prefix| part.strip_prefix(prefix))
        .unwrap_or(part);
    let hex = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (id.len() == 64 && hex).then_some(id)
}

/// The name below `/lxc/` (LXC before 4), `/lxc.payload/` or behind `lxc.payload.`, or of a
/// machine that systemd knows.
fn named(cgroup: &str) -> Option<&str> {
    let mut parts = cgroup.split('/').filter(|part| !part.is_empty());
    while let Some(part) = parts.next() {
        match part {
            "lxc" | "lxc.payload" => return parts.next(),
            "machine.slice" => return parts.next().and_then(machine),
            _ => {}
        }
        if let Some(name) = part.strip_prefix("lxc.payload.") {
            return Some(name);
        }
    }
    None
}

/// `systemd-nspawn@NAME.service`, `machine-NAME.scope`.
fn machine(unit: &str) -> Option<&str> {
    unit.strip_prefix("systemd-nspawn@")
        .and_then(|u| u.strip_suffix(".service"))
        .or_else(|| {
            unit.strip_prefix("machine-")
                .and_then(|u| u.strip_suffix(".scope"))
        })
}

#[cfg(test)]
mod tests {
    use super::container;

    const ID: &str = "3f4c1d9e8b7a60514233241506f7e8d9c0b1a2938475665748392a1b0c9d8e7f";

    #[test]
    fn runtimes_are_known_by_their_paths() {
        for path in [
            // docker, cgroupfs and systemd drivers, v1 and v2, rootless, docker in docker
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            "/docker/0000000000000000000000000000000000000000000000000000000000000000/docker/ID",
            "/system.slice/docker-ID.scope/init",
            // Kubernetes: containerd, cri-o, docker, systemd and cgroupfs drivers
            "/kubepods/burstable/pod2f1c8c4e-6d0b-4c5e-9a53-0e9f1b2d3c4a/ID",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2f1c8c4e_6d0b_4c5e_\
             9a53_0e9f1b2d3c4a.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod2f1c8c4e_6d0b.slice/crio-ID.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/docker-ID.scope",
            "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:ID",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope/container",
            // containerd's own namespaces, nerdctl
            "/default/ID",
            "/system.slice/nerdctl-ID.scope",
            // podman, root and rootless, with and without its inner cgroup
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "/libpod_parent/libpod-ID",
            // an ECS task
            "/ecs/4cd38e83-0d0b-4b0f-9a53/ID",
        ] {
            let path = path.replace("ID", ID);
            assert_eq!(container(&path), Some(ID), "{path}");
        }
    }

    #[test]
    fn machines_have_names() {
        for (path, name) in [
            ("/machine.slice/systemd-nspawn@web.service/payload", "web"),
            ("/machine.slice/machine-qemu\\x2d1.scope", "qemu\\x2d1"),
            ("/lxc/web1", "web1"),
            ("/lxc/web1/system.slice/nginx.service", "web1"),
            ("/lxc.payload.web1/system.slice/nginx.service", "web1"),
            ("/lxc.payload/web1", "web1"),
        ] {
            assert_eq!(container(path), Some(name), "{path}");
        }
    }

    #[test]
    fn services_are_no_containers() {
        for path in [
            "/",
            "",
            "/system.slice/docker.service",
            "/system.slice/containerd.service",
            "/user.slice/user-0.slice/session-1.scope",
            "/machine.slice",
            "/machine.slice/libpod-conmon-3f4c.scope",
            "/lxc",
            "/kubepods.slice/kubepods-burstable.slice",
            "/docker/3f4c1d",
            "/process_api/aac8ab85992889e97210225ab94879ce",
        ] {
            assert_eq!(container(path), None, "{path}");
        }
        let conmon = format!("/machine.slice/libpod-conmon-{ID}.scope");
        assert_eq!(container(&conmon), None);
    }
}
