"""The servers: how each is got, configured, started and asked.

Each runs with its own directory as working directory and keeps its data in `data` below it,
so that no configuration file holds a path (which may contain spaces).
"""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from devstack import downloads, probes
from devstack.probes import HOST
from devstack.problem import Problem

# Tests send messages of 10 MB; this is the limit all along the way.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
LIBRARY = Path(__file__).parent
PORTS_PER_STACK = 10


class Apache:
    """Apache Kafka: one node, broker and controller."""

    name = "kafka"
    flavor = "apache"
    ports = {"port": 0, "controller_port": 1, "secure_port": 6, "expired_port": 7}
    probe = staticmethod(probes.kafka)

    @staticmethod
    def fetch(dist):
        return downloads.kafka(dist)

    @staticmethod
    def address(port):
        return f"{HOST}:{port}"

    @staticmethod
    def prepare(directory, dist, ports, options):
        if options.kafka_security:
            shutil.copytree(options.kafka_security, directory / "security", dirs_exist_ok=True)
        secure = (directory / "security").is_dir()
        properties = _kafka_properties(ports, SECURE_LISTENERS if secure else {})
        (directory / "server.properties").write_text(properties)
        if (directory / "data" / "meta.properties").exists():
            return  # formatted by an earlier start
        java = [downloads.java(), "-XX:TieredStopAtLevel=1", "-cp", f"{dist}/*"]
        format_storage = ["kafka.tools.StorageTool", "format", "--ignore-formatted"]
        cluster = ["--cluster-id", "data-bridge-dev-stack0", "--config", "server.properties"]
        subprocess.run(
            [*java, *format_storage, *cluster],
            cwd=directory,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    @staticmethod
    def set_password(directory, dist, port, user, password):
        """Makes a SCRAM user, or gives it another password, while the broker runs."""
        command = [downloads.java(), "-XX:TieredStopAtLevel=1", "-cp", f"{dist}/*"]
        command += ["kafka.admin.ConfigCommand", "--bootstrap-server", f"{HOST}:{port}", "--alter"]
        command += ["--entity-type", "users", "--entity-name", user]
        command += ["--add-config", f"SCRAM-SHA-512=[password={password}]"]
        done = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Problem(f"Kafka took no password for {user}: {done.stdout}{done.stderr}")

    @staticmethod
    def command(_directory, dist, _ports):
        log_configuration = LIBRARY / "kafka" / "log4j2.properties"
        return [
            downloads.java(),
            "-Xms128m",
            "-Xmx512m",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={log_configuration.as_uri()}",
            "-cp",
            f"{dist}/*",
            "kafka.Kafka",
            "server.properties",
        ]


# Besides the open listener, which the tests' own clients use. The names are Kafka's for a listener;
# each has the key and the certificate of its file in the directory of --kafka-security.
SECURE_LISTENERS = {"SECURE": ("secure_port", "broker.pem"), "EXPIRED": ("expired_port", "expired.pem")}


def _kafka_properties(ports, secure):
    open_listener = f"PLAINTEXT://{HOST}:{ports['port']}"
    controller = f"{HOST}:{ports['controller_port']}"
    others = "".join(f",{name}://{HOST}:{ports[port]}" for name, (port, _) in secure.items())
    protocols = "".join(f",{name}:SASL_SSL" for name in secure)
    identities = "".join(_secure_listener(name.lower(), pem) for name, (_, pem) in secure.items())
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners={open_listener}{others},CONTROLLER://{controller}
advertised.listeners={open_listener}{others}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
{identities}\
log.dirs=data

# A misspelt topic is an error, not a new topic.
auto.create.topics.enable=false

# Tests send messages of 10 MB.
message.max.bytes={MAX_MESSAGE_BYTES}
replica.fetch.max.bytes={MAX_MESSAGE_BYTES}

# One node: nothing can be replicated.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Quick to start, quick to join: tests do it often, with short sessions.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

# A broker that was killed may register again only when its old session has ended (9 s).
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=4000

# The default of 128 MiB is a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
"""


def _secure_listener(name, pem):
    """TLS in both directions, and a password on top: whoever connects proves both."""
    prefix = f"listener.name.{name}"
    return f"""\
{prefix}.ssl.keystore.type=PEM
{prefix}.ssl.keystore.location=security/{pem}
{prefix}.ssl.truststore.type=PEM
{prefix}.ssl.truststore.location=security/ca.pem
{prefix}.ssl.client.auth=required
{prefix}.sasl.enabled.mechanisms=SCRAM-SHA-512
{prefix}.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


class Tansu:
    """A Kafka-compatible broker for where Maven Central cannot be reached. It keeps
    everything in memory: topics do not outlive a restart."""

    name = "kafka"
    flavor = "tansu"
    ports = {"port": 0}
    probe = staticmethod(probes.kafka)

    @staticmethod
    def fetch(dist):
        return downloads.tansu(dist)

    @staticmethod
    def address(port):
        return f"{HOST}:{port}"

    @staticmethod
    def prepare(directory, dist, ports, options):
        pass

    @staticmethod
    def command(_directory, dist, ports):
        url = f"tcp://{HOST}:{ports['port']}"
        return [
            str(dist),
            "broker",
            f"--listener-url={url}",
            f"--advertised-listener-url={url}",
            "--storage-engine=memory://tansu/",
        ]


class Nats:
    """NATS with JetStream."""

    name = "nats"
    flavor = "nats"
    ports = {"port": 2, "monitor_port": 3}
    probe = staticmethod(probes.nats)

    @staticmethod
    def fetch(dist):
        return downloads.nats(dist)

    @staticmethod
    def address(port):
        return f"nats://{HOST}:{port}"

    @staticmethod
    def prepare(directory, _dist, ports, _options):
        (directory / "nats.conf").write_text(
            f"""\
listen: "{HOST}:{ports["port"]}"
http: "{HOST}:{ports["monitor_port"]}"
max_payload: {MAX_MESSAGE_BYTES}
jetstream {{
  store_dir: data
  max_memory_store: 256MB
  max_file_store: 4GB
}}
"""
        )

    @staticmethod
    def command(_directory, dist, _ports):
        return [str(dist), "--config", "nats.conf"]


class ClickHouse:
    """ClickHouse, HTTP and native TCP, out of the library that chdb ships."""

    name = "clickhouse"
    flavor = "clickhouse"
    ports = {"port": 4, "tcp_port": 5}
    probe = staticmethod(probes.clickhouse)

    @staticmethod
    def fetch(dist):
        return downloads.clickhouse(dist)

    @staticmethod
    def address(port):
        return f"http://{HOST}:{port}"

    @staticmethod
    def prepare(directory, _dist, _ports, options):
        (directory / "config.xml").write_text(CLICKHOUSE_CONFIG)
        users = options.users_file
        text = Path(users).read_text() if users else _clickhouse_users(options.password)
        (directory / "users.xml").write_text(text)

    @staticmethod
    def command(_directory, dist, ports):
        return [
            sys.executable,
            str(LIBRARY / "clickhouse_server.py"),
            str(dist),
            "--config-file=config.xml",
            "--path=data",
            f"--http_port={ports['port']}",
            f"--tcp_port={ports['tcp_port']}",
            f"--listen_host={HOST}",
            "--logger.console=1",
            "--log-level=warning",
        ]


# Small caches and a memory limit, so that several stacks fit on one machine.
CLICKHOUSE_CONFIG = """\
<clickhouse>
  <users_config>users.xml</users_config>
  <max_server_memory_usage>4294967296</max_server_memory_usage>
  <mark_cache_size>67108864</mark_cache_size>
</clickhouse>
"""


def _clickhouse_users(password):
    """`default` has to stay without a password: the server itself runs its local query as it.
    `data_bridge` is there to test passwords with."""
    return f"""\
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>{HOST}</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </default>
    <data_bridge>
      <password>{escape(password)}</password>
      <networks><ip>{HOST}</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </data_bridge>
  </users>
</clickhouse>
"""


# In the order of their start: the others start while Kafka's storage is being formatted.
NAMES = ("nats", "clickhouse", "kafka")
BY_FLAVOR = {server.flavor: server for server in (Apache, Tansu, Nats, ClickHouse)}
