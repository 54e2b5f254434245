//! The manifest of an indexed job and of the suite that it runs.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::{SubmitArgs, arguments, text};
use crate::benchmark::{FIRST_INDEX, SHARDS, Software, Suite};

/// Where the volume for results is, in which the program runs.
const WORK: &str = "/longcast";
const DATA: &str = "/data";
const SUITE: &str = "/suite";

pub fn manifest(args: &SubmitArgs, suite: &Suite) -> anyhow::Result<String> {
    let (image, claim) = args.image.as_ref().zip(args.claim.as_ref()).context("--kubernetes needs both")?;
    let name = label(&suite.name);
    let file = format!("{}.toml", suite.name);
    let data = args.data_claim.as_ref().map(|_| PathBuf::from(DATA)).or_else(|| args.data.clone());
    let mut words = arguments(args, &Path::new(SUITE).join(&file), data.as_deref())?;
    words.extend(["--out".into(), text(&args.out)?]);
    let mut words: Vec<String> = words.iter().map(|word| literal(word)).collect();
    if let (true, Some(out)) = (args.separate, words.last_mut()) {
        *out += "/part-$(JOB_COMPLETION_INDEX)";
    }

    let resources = json!({ "cpu": args.cpus.to_string(), "memory": format!("{}Gi", args.memory) });
    let mut mounts = vec![
        json!({ "name": "results", "mountPath": WORK }),
        json!({ "name": "suite", "mountPath": SUITE, "readOnly": true }),
    ];
    let mut volumes = vec![
        json!({ "name": "results", "persistentVolumeClaim": { "claimName": claim } }),
        json!({ "name": "suite", "configMap": { "name": name } }),
    ];
    if let Some(claim) = &args.data_claim {
        mounts.push(json!({ "name": "data", "mountPath": DATA, "readOnly": true }));
        volumes.push(json!({ "name": "data", "persistentVolumeClaim": { "claimName": claim, "readOnly": true } }));
    }
    let container = json!({
        "name": "longcast",
        "image": image,
        "command": [literal(&text(&args.program)?)],
        "args": words,
        "env": [
            { "name": SHARDS, "value": args.jobs.to_string() },
            { "name": FIRST_INDEX, "value": "0" },
            { "name": "RAYON_NUM_THREADS", "value": args.cpus.to_string() },
        ],
        "resources": { "requests": resources, "limits": resources },
        "volumeMounts": mounts,
        "workingDir": WORK,
    });
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name },
        "spec": {
            "completionMode": "Indexed",
            "completions": args.jobs,
            "parallelism": args.jobs,
            "backoffLimitPerIndex": 3,
            "podFailurePolicy": { "rules": [
                // A part that is moved off its node has not failed, and one of wrong usage never succeeds.
                { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] },
                {
                    "action": "FailIndex",
                    "onExitCodes": { "containerName": "longcast", "operator": "In", "values": [2] },
                },
            ] },
            "template": { "spec": {
                "restartPolicy": "Never",
                "activeDeadlineSeconds": args.hours.get().saturating_mul(3600),
                // What an interrupted program has to write it writes in less.
                "terminationGracePeriodSeconds": 60,
                "containers": [container],
                "volumes": volumes,
            } },
        },
    });
    let suite_map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name },
        "data": { file: suite.text },
    });
    written(suite, args, &[suite_map, job])
}

fn written(suite: &Suite, args: &SubmitArgs, documents: &[Value]) -> anyhow::Result<String> {
    let head = format!(
        "# The suite {} in {} parts, printed by longcast {}: the suite, and a job that runs one part in each pod.\n\
         # To be sent with: kubectl apply -f FILE\n",
        suite.name,
        args.jobs,
        Software::this().version
    );
    let documents: Vec<String> = documents.iter().map(serde_saphyr::to_string).collect::<Result<_, _>>()?;
    Ok(head + &documents.join("---\n"))
}

/// A name that Kubernetes takes: small letters, digits and single words of them joined by '-', and room for the
/// numbers it adds.
fn label(name: &str) -> String {
    const LONGEST: usize = 40;
    let plain: String =
        name.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let label: String = format!("longcast-{}", plain.trim_matches('-')).chars().take(LONGEST).collect();
    label.trim_end_matches('-').to_string()
}

/// Kubernetes puts variables in for $(NAME), and $ for $$.
fn literal(word: &str) -> String {
    word.replace('$', "$$")
}
