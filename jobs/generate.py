"""The images of an attack's targets on Spark, for a cluster with GPUs; takes the arguments of `dedup extraction generate`.

spark-submit --master spark://HOST:7077 jobs/generate.py RUN/targets --model MODEL --out URL [-c conf/cluster.yaml]
"""

from dedup.cli.submit import submit_command

if __name__ == "__main__":
    submit_command("extraction", "generate")
