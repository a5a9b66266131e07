"""Stage `groups` on Spark: connected components, cut into groups.

spark-submit --master spark://HOST:7077 jobs/groups.py [-c conf/cluster.yaml] output.run_dir=URL …
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "groups")
