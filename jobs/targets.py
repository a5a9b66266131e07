"""Stage `targets` on Spark: the extraction attack's target list.

spark-submit --master spark://HOST:7077 jobs/targets.py [-c conf/cluster.yaml] output.run_dir=URL …
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "targets")
