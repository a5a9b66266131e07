"""Options of JVMs that live for seconds: the second compiler and the collector's threads cost them more than they save."""

OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData"
# the JVM that works out a command, that of a driver, those of masters and workers; executors are told by a setting
VARIABLES = ("SPARK_LAUNCHER_OPTS", "SPARK_SUBMIT_OPTS", "SPARK_DAEMON_JAVA_OPTS")
EXECUTORS = {"spark.executor.extraJavaOptions": OPTIONS}
