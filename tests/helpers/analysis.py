def tables_of(experiment, records):
    analysis = experiment.analysis()
    return analysis.tables([analysis.reduce(part) for (_,), part in records.group_by(["model"], maintain_order=True)])
