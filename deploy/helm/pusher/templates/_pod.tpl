{{- define "pusher.labels" -}}
app.kubernetes.io/name: pusher
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{/* The configuration's checksum is an annotation: a change of it rolls the pods. */}}
{{- define "pusher.pod" -}}
metadata:
  labels:
    {{- include "pusher.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ .root.Values.config | toYaml | sha256sum }}
    {{- with .root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ add (int .root.Values.graceSeconds) 15 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "pusher.labels" . | nindent 10 }}
  containers:
    - name: pusher
      image: "{{ .root.Values.image.repository }}{{ if not (contains "@" .root.Values.image.repository) }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}"
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      # the image's entry point is tini, which passes signals on
      args: {{ .args | toJson }}
      env:
        - {name: PUSHER_ADMIN_HOST, value: "0.0.0.0"}
        - {name: PUSHER_ADMIN_PORT, value: {{ .root.Values.admin.port | quote }}}
        - {name: PUSHER_ADMIN_READYWHEN, value: {{ .root.Values.readyWhen | quote }}}
        - {name: PUSHER_GRACEFULSHUTDOWNTIMEOUT, value: "{{ .root.Values.graceSeconds }}s"}
        - {name: PUSHER_FEEDBACKLISTENERS_GRACEFULSHUTDOWNTIMEOUT, value: "{{ .root.Values.graceSeconds }}s"}
        {{- with .root.Values.admin.tokenSecret }}
        - name: PUSHER_ADMIN_TOKEN
          valueFrom: {secretKeyRef: {name: {{ . }}, key: token}}
        {{- end }}
        {{- range $key, $value := .environment }}
        - {name: {{ $key }}, value: {{ $value | quote }}}
        {{- end }}
      {{- with .root.Values.environmentSecrets }}
      envFrom:
        {{- range . }}
        - secretRef: {name: {{ . }}}
        {{- end }}
      {{- end }}
      ports:
        - {name: admin, containerPort: {{ .root.Values.admin.port }}}
      # the process itself: a provider's outage is no reason to restart it
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 5
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /app/config, readOnly: true}
        {{- if .root.Values.credentialsSecret }}
        - {name: credentials, mountPath: /app/tls, readOnly: true}
        {{- end }}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: config
      configMap: {name: {{ .root.Release.Name }}-config}
    {{- with .root.Values.credentialsSecret }}
    - name: credentials
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 16Mi}
  {{- with .root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* A Deployment, and what keeps some of its pods at work. */}}
{{- define "pusher.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels:
    {{- include "pusher.labels" . | nindent 4 }}
spec:
  {{- if not .scaled }}
  replicas: {{ .replicas }}
  {{- end }}
  # one at a time, the new one first: the others take its partitions over meanwhile
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "pusher.labels" . | nindent 6 }}
  template:
    {{- include "pusher.pod" . | nindent 4 }}
{{- if .root.Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels:
    {{- include "pusher.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "pusher.labels" . | nindent 6 }}
{{- end }}
{{- if .scaled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels:
    {{- include "pusher.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ .root.Release.Name }}-{{ .name }}}
  minReplicas: {{ .root.Values.autoscaling.minReplicas }}
  maxReplicas: {{ .root.Values.autoscaling.maxReplicas }}
  metrics:
    - type: Pods
      pods:
        metric: {name: {{ .root.Values.autoscaling.metric }}}
        target: {type: AverageValue, averageValue: {{ .root.Values.autoscaling.averageValue | quote }}}
  behavior:
    # each change moves partitions to other processes
    scaleDown: {stabilizationWindowSeconds: 600}
{{- end }}
{{- end }}
