"""A new experiment in one file: take the colour out of the image and watch the accuracy."""

import dataclasses

import ipvit


@dataclasses.dataclass(frozen=True)
class GreyCondition(ipvit.Condition):
    amount: float


class Grey(ipvit.Experiment):
    """Take the colour out of the image and watch the accuracy."""

    name = "grey"
    title = "Loss of colour"
    question = "How much does a network rely on colour?"

    amounts: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Share of the colour that is lost."""

    def conditions(self, model):
        return [GreyCondition(amount) for amount in self.amounts]

    def measure(self, model, batch):
        grey = batch.images.mean(dim=1, keepdim=True).expand_as(batch.images)
        for condition in batch.conditions:
            images = batch.images.lerp(grey, condition.amount)
            yield ipvit.Records(condition, ipvit.classify(model, images, batch.labels))

    def analysis(self):
        lost = ipvit.Column(title="colour lost", unit="share", level=True)
        return ipvit.Analysis.of(self, {"amount": lost}, clean={"amount": 0.0})


if __name__ == "__main__":
    run = ipvit.run(Grey(), models="demo:deit_micro", data="demo:trifeature", out="runs/own-experiment", limit=60)
    print(run.tables["grey"])
