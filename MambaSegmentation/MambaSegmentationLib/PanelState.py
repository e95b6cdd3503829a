"""What the scene remembers of the panel: typed fields over one vtkMRMLScriptedModuleNode."""

import json


class _Text:
    def __init__(self, default: str = ""):
        self.default = default

    def __set_name__(self, owner, name: str):
        self.name = name

    def __get__(self, state, owner=None) -> str:
        if state is None:
            return self
        return state.node.GetParameter(self.name) or self.default

    def __set__(self, state, value: str):
        if self.__get__(state) != value:
            state.node.SetParameter(self.name, value)


class _Flag(_Text):
    def __get__(self, state, owner=None) -> bool:
        return super().__get__(state, owner) == "true"

    def __set__(self, state, value: bool):
        super().__set__(state, "true" if value else "false")


class _Number(_Text):
    def __get__(self, state, owner=None) -> float:
        return float(super().__get__(state, owner) or 0)

    def __set__(self, state, value: float):
        super().__set__(state, repr(float(value)))


class _Texts(_Text):
    """A list of texts."""

    def __get__(self, state, owner=None) -> list[str]:
        return json.loads(super().__get__(state, owner) or "[]")

    def __set__(self, state, value):
        super().__set__(state, json.dumps(list(value), ensure_ascii=False))


class _Node:
    def __set_name__(self, owner, name: str):
        self.name = name

    def __get__(self, state, owner=None):
        return self if state is None else state.node.GetNodeReference(self.name)

    def __set__(self, state, node):
        if self.__get__(state) is not node:
            state.node.SetNodeReferenceID(self.name, node.GetID() if node else None)


class _Nodes(_Node):
    """A list of nodes, with None for a place that is still free."""

    def __get__(self, state, owner=None) -> list:
        if state is None:
            return self
        count = int(state.node.GetParameter(self.name + "Count") or 0)
        return [state.node.GetNodeReference(f"{self.name}{index}") for index in range(count)]

    def __set__(self, state, nodes):
        nodes, old = list(nodes), self.__get__(state)
        if len(nodes) == len(old) and all(a is b for a, b in zip(nodes, old, strict=True)):
            return
        state.node.SetParameter(self.name + "Count", str(len(nodes)))
        for index, node in enumerate([*nodes, *[None] * (len(old) - len(nodes))]):
            state.node.SetNodeReferenceID(f"{self.name}{index}", node.GetID() if node else None)


class PanelState:
    """The panel's choices; stored in `node`, hence saved with the scene and restored with it.

    >>> state = PanelState(logic.getParameterNode())
    >>> state.inputVolume = volumeNode
    """

    inputVolume = _Node()
    roi = _Node()
    resultSegmentation = _Node()
    modelId = _Text()
    device = _Text("auto")
    moreInputs = _Nodes()  # the further inputs of a model with several
    otherVolumes = _Nodes()  # to segment as well, one after the other
    leftOut = _Texts()  # structures of the model that are not asked for
    smoothingMm = _Number()
    largestComponent = _Flag()
    doubtMap = _Flag()
    allFrames = _Flag()
    showSurface = _Flag()
    folderInput = _Text()  # the folder whose images are segmented
    folderOutput = _Text()  # and that of the results
    reviewSource = _Text("scene")
    reviewPlace = _Text()  # the folder or table of the review
    reviewFile = _Text()  # the session to go on with
    lockedSegments = _Texts()  # IDs of segments that a correction leaves alone
    correctionRoi = _Node()  # outside of it a correction changes nothing
    correctAtClick = _Flag("true")  # a click starts the correction by itself

    def __init__(self, node):
        self.node = node
