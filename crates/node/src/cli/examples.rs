//! The examples under each command's `--help`. The tests give every line to the parser.

pub(super) const TAHINI: &str = "\
Examples:
  tahini validate my-project                     what is wrong with it
  tahini run my-project --data my-data           run its pipes until nothing changes
  tahini serve my-project --data my-data         keep them running, with API and status page

`tahini help COMMAND` has examples of each command. Exit codes: 0 done, 1 failed, 2 wrong usage,
3 the configuration has errors, 4 the node could not be reached, 5 it wants another token,
7 something differs, 130 Ctrl-C.";

pub(super) const SERVE: &str = "\
Examples:
  tahini serve my-project
  tahini serve --listen localhost:9050 --data /var/lib/tahini
  tahini serve my-project --profile prod --secrets secrets.json --listen 0.0.0.0:9042";

pub(super) const RUN: &str = "\
Examples:
  tahini run my-project --data my-data
  tahini run my-project --pipe people --pipe greetings
  tahini run my-project --json | jq .status";

pub(super) const TEST: &str = "\
Examples:
  tahini test my-project
  tahini test my-project --update                 take what the pipes give as what is expected
  tahini test my-project --secrets secrets.json --json";

pub(super) const BACKUP: &str = "\
Examples:
  tahini backup daily --node http://127.0.0.1:9042   a running node, into its folder of backups
  tahini backup /backups/node --data my-data         a node that is stopped
  tahini backup daily --node https://hub.example.com --token-file token --json";

pub(super) const RESTORE: &str = "\
Examples:
  tahini restore /backups/daily --check              whether every byte is as it was saved
  tahini restore /backups/daily --data my-data       into an empty folder
  tahini restore /backups/daily --data my-data --force";

pub(super) const VALIDATE: &str = "\
Examples:
  tahini validate my-project
  tahini validate my-project --profile prod
  tahini validate my-project --json | jq '.problems[] | {file, line, msg}'";

pub(super) const TRANSFORM: &str = "\
Examples:
  tahini transform rules.json < people.ndjson > greetings.ndjson
  tahini transform pipes/greetings.conf.json --env test-env.json < people.json
  tahini transform rules.json --dataset orders=orders.json --now 2024-02-29T12:30:00Z < people.json
  tahini transform rules.json --explain < one.json";

pub(super) const EXPLAIN: &str = "\
Examples:
  tahini explain                                  all functions, by chapter
  tahini explain concat hops
  tahini explain pipes/greetings.conf.json        what its rules read and depend on";

pub(super) const FMT: &str = "\
Examples:
  tahini fmt my-project
  tahini fmt my-project/pipes/people.conf.json
  tahini fmt --check my-project";

pub(super) const SCHEMA: &str = "\
Examples:
  tahini schema > tahini.schema.json
  tahini schema pipe";

pub(super) const ENTITIES: &str = "\
Examples:
  tahini entities greetings --data my-data
  tahini entities greetings --data my-data --history --since 41 --limit 10
  tahini entities greetings --data my-data --uncommitted
  tahini entities greetings --project my-project --stage before-transforms";

pub(super) const BREAKER: &str = "\
Examples:
  tahini breaker show orders --data my-data
  tahini breaker rollback orders --data my-data";

pub(super) const ERASE: &str = "\
Examples:
  tahini erase people 17 42 --data my-data
  curl -X DELETE 'http://127.0.0.1:9042/api/datasets/people/entity?entity_id=17&entity_id=42'";

pub(super) const TRACE: &str = "\
Examples:
  tahini trace greetings 2 --project my-project --data my-data
  tahini trace greetings 2 --json | jq '.steps[] | select(.step == \"sink\")'";

pub(super) const WHY: &str = "\
Examples:
  tahini why greetings                            the node at http://127.0.0.1:9042
  tahini why greetings --node https://hub.example.com --token-file token
  tahini why greetings --json | jq '.[\"root-causes\"]'";

pub(super) const LINEAGE: &str = "\
Examples:
  tahini lineage greetings                        all properties, as far back as pipes go
  tahini lineage greetings address.city --depth 1
  tahini lineage greetings --json | jq '.properties[].origins'";

pub(super) const HOPS: &str = "\
Examples:
  tahini hops greetings                           the node at http://127.0.0.1:9042
  tahini hops greetings --json | jq '.tracked[] | select(.largest > 1000)'";

pub(super) const MICROSERVICE_NEW: &str = "\
Examples:
  tahini microservice new crm-reader --lang python --kind source
  tahini microservice new crm --lang node --kind source+sink --project my-project";

pub(super) const MICROSERVICE_CHECK: &str = "\
Examples:
  tahini microservice check http://localhost:5000/entities
  tahini microservice check http://localhost:5000/entities --kind sink --entities people.json
  tahini microservice check http://localhost:9042/api/systems/crm/proxy/entities --json";

pub(super) const TOKEN: &str = "\
Examples:
  tahini token create --role reader --expires 12h
  tahini token create --role admin --expires 30d > token.txt";

pub(super) const COMPLETIONS: &str = "\
Examples:
  tahini completions bash > /etc/bash_completion.d/tahini
  tahini completions zsh > ~/.zfunc/_tahini
  tahini completions fish > ~/.config/fish/completions/tahini.fish";

pub(super) const CONNECTOR_INIT: &str = "\
Examples:
  tahini connector init crm-connector --datatype contact --datatype company --share
  tahini connector init shop-connector --auth api_key";

pub(super) const CONNECTOR_EXPAND: &str = "\
Examples:
  tahini connector expand crm-connector --system crm
  tahini connector expand crm-connector --system crm -e ../hub";

pub(super) const CONNECTOR_VALIDATE: &str = "\
Examples:
  tahini connector validate crm-connector
  tahini connector validate crm-connector --json | jq .errors";

pub(super) const CONNECTOR_AUTHENTICATE: &str = "\
Examples:
  tahini connector authenticate crm-connector --system crm --into secrets.json
  tahini connector authenticate --node http://127.0.0.1:9042 --port 5010";
