{{/* Name of the chart's objects: the release's name when it already says energylens. */}}
{{- define "energylens.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "energylens.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "energylens.labels" -}}
{{ include "energylens.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "energylens.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "energylens.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* repository:tag, or repository:tag@digest when a digest pins it. */}}
{{- define "energylens.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- if .Values.image.digest -}}@{{ .Values.image.digest }}{{- end -}}
{{- end -}}

{{/* What the operator does in each namespace that it manages. */}}
{{- define "energylens.namespaceRules" -}}
# What users ask for, and what platform teams cap. The operator never writes a spec.
- apiGroups: [energylens.dev]
  resources: [llmdeployments, energybudgets]
  verbs: [list, watch]
# Status is a server-side apply.
- apiGroups: [energylens.dev]
  resources: [llmdeployments/status, energybudgets/status]
  verbs: [patch]
# Serving pods of a layout on one node. Children go by owner references; delete: a plan that moves from one node to
# several (or back) replaces this object by the next one (or the other way round), once that one's pods are ready.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch, delete]
# Serving pods of a layout over several nodes.
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [list, watch, create, patch, delete]
# The endpoint of the serving pods.
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch]
# The table of plans that is kept beside each deployment; get: a model's config.json, spec.model.configRef.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
# Keeps one replica serving while nodes are drained.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch, delete]
# The pods among which a gateway chooses, spec.routing.inferencePool.
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [list, watch, create, patch, delete]
# The GPUs that serving pods claim on nodes of dynamic resource allocation; those of earlier plans are deleted.
- apiGroups: [resource.k8s.io]
  resources: [resourceclaimtemplates]
  verbs: [list, watch, create, patch, delete]
# What Kueue says about pods that wait in a queue.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
# Whether the volume claims that a spec names may be mounted by one pod or one node only.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
# Decisions that users see in `kubectl describe llmd`; list: why pods of a group are refused, or a volume is not mounted.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, list]
{{- end -}}

{{/* The GPUs at hand and those in use, by everyone. */}}
{{- define "energylens.gpuRules" -}}
# GPU products, counts, taints and labels; the namespaces that a ClusterEnergyBudget selects by their labels.
- apiGroups: [""]
  resources: [nodes, namespaces]
  verbs: [list, watch]
# GPUs of dynamic resource allocation, and how pods may ask for them.
- apiGroups: [resource.k8s.io]
  resources: [resourceslices, deviceclasses, devicetaintrules]
  verbs: [list, watch]
# Caps over several namespaces or nodes.
- apiGroups: [energylens.dev]
  resources: [clusterenergybudgets]
  verbs: [list, watch]
# Their status is a server-side apply too.
- apiGroups: [energylens.dev]
  resources: [clusterenergybudgets/status]
  verbs: [patch]
{{ include "energylens.podRules" . }}
{{- end -}}

{{- define "energylens.podRules" -}}
# GPUs in use, readiness of the serving pods, and the addresses of their metrics.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# GPUs in use that were allocated through dynamic resource allocation.
- apiGroups: [resource.k8s.io]
  resources: [resourceclaims]
  verbs: [list, watch]
{{- end -}}
