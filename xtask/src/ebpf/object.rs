//! What is done to the linked ELF object.

use std::collections::BTreeMap;

use anyhow::Result;
use object::build::elf::{Builder, Section, SectionData};
use object::elf::{SHF_EXECINSTR, SHT_STRTAB};
use object::{Object as _, ObjectSection as _, SectionFlags};

/// Removes DWARF and its relocations; `.BTF` and `.BTF.ext`, which the agent needs, stay.
pub(super) fn strip_debug_sections(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(bytes)?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    // LLVM names sections and symbols from one table, the writer wants one for each.
    let has_names = |section: &Section| matches!(section.data, SectionData::SectionString);
    if !elf.sections.iter().any(has_names) {
        let names = elf.sections.add();
        names.name = b".shstrtab".as_slice().into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}

/// Says which sections of instructions differ between two objects.
pub(super) fn compare_programs(committed: &[u8], fresh: &[u8]) -> Result<String> {
    let committed = program_sections(committed)?;
    let fresh = program_sections(fresh)?;
    let mut differences = Vec::new();
    for (name, old) in &committed {
        match fresh.get(name) {
            None => differences.push(format!("{name} is gone")),
            Some(new) if new != old => differences.push(format!(
                "{name} differs ({} instructions committed, {} rebuilt)",
                old.len() / 8,
                new.len() / 8
            )),
            Some(_) => {}
        }
    }
    for name in fresh.keys().filter(|name| !committed.contains_key(*name)) {
        differences.push(format!("{name} is new"));
    }
    if differences.is_empty() {
        return Ok(format!(
            "all {} sections of instructions are equal",
            fresh.len()
        ));
    }
    Ok(differences.join(", "))
}

fn program_sections(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = object::File::parse(bytes)?;
    let mut sections = BTreeMap::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else {
            continue;
        };
        if sh_flags & u64::from(SHF_EXECINSTR) != 0 {
            sections.insert(section.name()?.to_owned(), section.data()?.to_vec());
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &[u8] = include_bytes!("../../../tcptrace-user/bpf/tcptrace.bpf.o");

    #[test]
    fn the_committed_object_parses_and_has_programs_and_btf() {
        let object = aya_obj::Object::parse(COMMITTED).expect("aya parses the object");
        assert!(!object.programs.is_empty());
        assert!(object.btf.is_some());
        assert!(object.btf_ext.is_some());
    }

    #[test]
    fn the_committed_object_has_no_dwarf_and_no_path_of_a_machine() {
        let file = object::File::parse(COMMITTED).expect("an ELF object");
        let names: Vec<_> = file
            .sections()
            .filter_map(|section| section.name().ok())
            .collect();
        assert!(
            names.iter().all(|name| !name.contains(".debug_")),
            "{names:?}"
        );
        let text = String::from_utf8_lossy(COMMITTED);
        let here = [env!("CARGO_MANIFEST_DIR"), env!("CARGO")];
        let home = std::env::var("HOME").unwrap_or_default();
        let home = if home.len() > 1 { &*home } else { "/home/" };
        for foreign in here
            .into_iter()
            .chain([home, "/home/", "/tmp/", "registry", "index."])
        {
            assert!(!text.contains(foreign), "{foreign} is in the object");
        }
    }

    #[test]
    fn stripping_twice_changes_nothing() {
        let once = strip_debug_sections(COMMITTED).expect("strips");
        assert_eq!(strip_debug_sections(&once).expect("strips again"), once);
    }

    #[test]
    fn equal_objects_have_no_differences() {
        let said = compare_programs(COMMITTED, COMMITTED).expect("compares");
        assert!(said.ends_with("are equal"), "{said}");
    }

    #[test]
    fn a_changed_instruction_is_told() {
        let (name, code) = program_sections(COMMITTED)
            .expect("sections")
            .into_iter()
            .find(|(_, code)| !code.is_empty())
            .expect("a program");
        let at = COMMITTED
            .windows(code.len())
            .position(|window| window == code)
            .expect("the code is in the file");
        let mut changed = COMMITTED.to_vec();
        changed[at] ^= 0xff;
        let said = compare_programs(COMMITTED, &changed).expect("compares");
        assert!(said.contains(&format!("{name} differs")), "{said}");
    }
}
